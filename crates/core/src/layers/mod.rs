//! The six layers, a file each.

pub mod descriptors;
pub mod hard_wall;
pub mod health;
pub mod kill_switch;
pub mod recovery;
pub mod soft_limit;
