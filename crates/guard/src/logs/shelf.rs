//! The thread that writes: the only one that waits for the disk.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::line::Stamp;
use super::outbox::{Item, Outbox, SeriesId};
use super::pump::Counters;
use super::series::Series;

/// Files held open at once, whatever the number of services.
const OPEN_MAX: usize = 64;
/// With nothing to write all files are closed after this long.
const IDLE: Duration = Duration::from_mins(1);

pub(super) struct Shelf {
    logs: PathBuf,
    outbox: Arc<Outbox>,
    counters: Arc<Counters>,
    series: HashMap<SeriesId, Series>,
    /// Those with an open file; the one used longest ago comes first.
    used: Vec<SeriesId>,
    stamp: Stamp,
    troubles: BTreeMap<SeriesId, String>,
}

impl Shelf {
    pub(super) fn new(logs: PathBuf, outbox: Arc<Outbox>, counters: Arc<Counters>) -> Self {
        Self {
            logs,
            outbox,
            counters,
            series: HashMap::new(),
            used: Vec::new(),
            stamp: Stamp::new(),
            troubles: BTreeMap::new(),
        }
    }

    /// Works until told to stop. A bug in here costs the lines that it struck at.
    pub(super) fn run(mut self) {
        loop {
            let step = catch_unwind(AssertUnwindSafe(|| self.step()));
            if let Ok(ControlFlow::Break(())) = step {
                return;
            }
        }
    }

    fn step(&mut self) -> ControlFlow<()> {
        match self.outbox.take(IDLE) {
            Some(Item::Open { series, name, bounds }) => match self.series.get_mut(&series) {
                Some(known) => known.set_bounds(bounds),
                None => _ = self.series.insert(series, Series::new(name, bounds)),
            },
            Some(Item::Lines { series, lines }) => self.write(series, &lines),
            Some(Item::Close { series }) => {
                self.series.remove(&series);
                self.used.retain(|used| *used != series);
                self.note_trouble(series, None);
            }
            Some(Item::Flush(reply)) => {
                // Who asked may have given up.
                let _ = reply.try_send(());
            }
            Some(Item::Stop) => return ControlFlow::Break(()),
            None => self.close_all(),
        }
        ControlFlow::Continue(())
    }

    fn write(&mut self, id: SeriesId, lines: &[u8]) {
        self.make_room(id);
        let Some(series) = self.series.get_mut(&id) else { return };
        let gap = series.write(&self.logs, lines, &mut self.stamp);
        if series.is_open() {
            self.used.push(id);
        }
        let trouble = series.trouble();
        self.counters.dropped(gap);
        self.note_trouble(id, trouble.as_deref());
    }

    /// Takes this one out of the row, and closes what was used longest ago when too many are open.
    fn make_room(&mut self, id: SeriesId) {
        self.used.retain(|used| *used != id);
        while self.used.len() >= OPEN_MAX {
            let oldest = self.used.remove(0);
            if let Some(series) = self.series.get_mut(&oldest) {
                series.close();
            }
        }
    }

    fn close_all(&mut self) {
        for id in self.used.drain(..) {
            if let Some(series) = self.series.get_mut(&id) {
                series.close();
            }
        }
    }

    fn note_trouble(&mut self, id: SeriesId, trouble: Option<&str>) {
        let before = match trouble {
            Some(why) => self.troubles.insert(id, why.to_owned()),
            None => self.troubles.remove(&id),
        };
        if before.as_deref() != trouble {
            self.counters.set_message(self.troubles.values().next().cloned().unwrap_or_default());
        }
    }
}
