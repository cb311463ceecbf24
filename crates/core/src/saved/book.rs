//! The saved form of every service, kept so that only what has changed is written anew: with a thousand services a
//! change of one must not cost the work of a thousand.

use alloc::vec::Vec;

use super::codec;
use crate::head::Head;
use crate::ids::ServiceId;

#[derive(Debug, Default)]
pub struct Book {
    services: Vec<Vec<u8>>,
}

impl Book {
    /// What [`super::Saved::encode`] would give for the head as it is now. `None` where nothing has changed since the
    /// last time.
    pub fn update(&mut self, head: &mut Head) -> Option<Vec<u8>> {
        let changed = head.take_changed();
        if changed.is_empty() {
            return None;
        }
        for ServiceId(index) in changed {
            let index = index as usize;
            if self.services.len() <= index {
                self.services.resize(index + 1, Vec::new());
            }
            if let Some(saved) = head.save_service(index) {
                self.services[index] = codec::service(&saved);
            }
        }
        Some(codec::whole(head.next_incident_number(), &self.services))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceConfig;
    use crate::event::{Event, Order};
    use crate::saved::Saved;
    use crate::units::Instant;

    #[test]
    fn the_book_says_what_the_head_would_and_only_when_something_changed() {
        let mut head = Head::new(1);
        let names = ["one", "two", "three"];
        let ids = names.map(|name| head.add(ServiceConfig::named(name), 1));
        let mut book = Book::default();
        let whole = book.update(&mut head).expect("all of it is new");
        assert_eq!(Saved::decode(&whole), Ok(head.save()));
        assert_eq!(book.update(&mut head), None);
        head.handle(Instant(5), Event::Ordered { service: ids[1], order: Order::Start });
        let whole = book.update(&mut head).expect("one was ordered to start");
        assert_eq!(whole, head.save().encode());
        assert_eq!(Saved::decode(&whole), Ok(head.save()));
    }
}
