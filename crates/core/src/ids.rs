//! Names that stay the same for as long as anything may refer to them.

/// A service's place in the configuration; it keeps its id over a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// One running copy. Numbers grow and are never used again, so a late event cannot meet the wrong instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    pub service: ServiceId,
    pub number: u64,
}

/// An incident's number in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub u64);
