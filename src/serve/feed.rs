//! Numbered things for whoever wants to hear of them, a bounded number of them kept: one writer, any number of readers, each at
//! its own pace. The writer waits for none of them, and none is told of something without being told of what was left out before.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The writer's end. When it is dropped, readers come to an end.
#[derive(Debug)]
pub struct Feed<T> {
    kept: Arc<Mutex<Kept<T>>>,
    last: watch::Sender<u64>,
    most: usize,
}

/// A reader's end.
#[derive(Debug)]
pub struct Reader<T> {
    kept: Arc<Mutex<Kept<T>>>,
    last: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Kept<T> {
    /// Numbers rise.
    items: VecDeque<(u64, T)>,
    /// Everything with a greater number is here.
    complete_after: u64,
    /// The last number that was given.
    last: u64,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What may be missing before `items`.
    pub gap: Option<Gap>,
    /// Oldest first.
    pub items: Vec<(u64, T)>,
}

/// Something with a number between the two may be missing; where `after` is greater than `before`, numbers began anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Gap {
    /// The last number that the reader has.
    pub after: u64,
    /// From this one on nothing is missing.
    pub before: u64,
}

impl<T: Clone> Feed<T> {
    /// Keeps `most` items. `kept` is what there is already: everything with a greater number than `complete_after`, up to `last`.
    pub fn new(most: usize, complete_after: u64, kept: Vec<(u64, T)>, last: u64) -> Self {
        let kept = Kept { items: kept.into(), complete_after, last };
        let feed = Self { kept: Arc::new(Mutex::new(kept)), last: watch::Sender::new(last), most };
        feed.publish([]);
        feed
    }

    /// Another reader.
    pub fn reader(&self) -> Reader<T> {
        Reader { kept: Arc::clone(&self.kept), last: self.last.subscribe() }
    }

    /// Adds items with rising numbers, greater than those before; forgets the oldest.
    pub fn publish(&self, items: impl IntoIterator<Item = (u64, T)>) {
        let mut kept = lock(&self.kept);
        let before = kept.last;
        for (number, item) in items {
            kept.last = number;
            kept.items.push_back((number, item));
        }
        while kept.items.len() > self.most {
            if let Some((number, _)) = kept.items.pop_front() {
                kept.complete_after = number;
            }
        }
        let last = kept.last;
        drop(kept);
        if last != before {
            self.last.send_replace(last);
        }
    }

    /// The newest `count`, oldest first.
    pub fn newest(&self, count: usize) -> Vec<T> {
        let kept = lock(&self.kept);
        kept.items.iter().skip(kept.items.len().saturating_sub(count)).map(|(_, item)| item.clone()).collect()
    }
}

impl<T: Clone> Reader<T> {
    /// The oldest `most` with a greater number than `since`.
    pub fn after(&self, since: u64, most: usize) -> Page<T> {
        let kept = lock(&self.kept);
        let gap = (since < kept.complete_after || since > kept.last)
            .then_some(Gap { after: since, before: kept.complete_after.saturating_add(1) });
        let since = if since > kept.last { 0 } else { since };
        let from = kept.items.partition_point(|(number, _)| *number <= since);
        Page { gap, items: kept.items.range(from..).take(most).cloned().collect() }
    }

    /// The last number that was given.
    pub fn last(&self) -> u64 {
        lock(&self.kept).last
    }

    /// Everything with a greater number is kept.
    pub fn complete_after(&self) -> u64 {
        lock(&self.kept).complete_after
    }

    /// Readers of the same on another thread, and what must run there for them: they are woken by it, so that the writer wakes one only.
    pub fn relayed(self) -> (Self, impl Future<Output = ()> + Send)
    where
        T: Send,
    {
        let mut since = self.last();
        let (last, receiver) = watch::channel(since);
        let near = Self { kept: Arc::clone(&self.kept), last: receiver };
        let mut far = self;
        let relay = async move {
            while far.news(since).await {
                since = far.last();
                last.send_replace(since);
            }
        };
        (near, relay)
    }

    /// Until there is something with a greater number than `since`; `false`: there never will be.
    pub async fn news(&mut self, since: u64) -> bool {
        self.last.wait_for(|last| *last > since).await.is_ok()
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept), last: self.last.clone() }
    }
}

/// Nothing under it can panic half-way.
fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
        numbers.into_iter().map(|number| (number, 10 * number)).collect()
    }

    #[test]
    fn nothing_is_left_out_without_a_word() {
        let feed = Feed::new(3, 0, items([5, 7]), 7);
        let reader = feed.reader();
        assert_eq!(reader.after(0, 9), Page { gap: None, items: items([5, 7]) });
        assert_eq!(reader.after(5, 9), Page { gap: None, items: items([7]) });
        feed.publish(items([8, 10]));
        let gap = |after, before| Some(Gap { after, before });
        assert_eq!(reader.after(4, 9), Page { gap: gap(4, 6), items: items([7, 8, 10]) });
        assert_eq!(reader.after(5, 2), Page { gap: None, items: items([7, 8]) });
        assert_eq!(reader.after(10, 9), Page { gap: None, items: vec![] });
        assert_eq!(
            reader.after(11, 9),
            Page { gap: gap(11, 6), items: items([7, 8, 10]) },
            "another journal"
        );
        assert_eq!((feed.newest(2), feed.newest(9).len(), reader.last()), (vec![80, 100], 3, 10));
    }

    #[test]
    fn readers_behind_a_relay_hear_the_same() {
        let feed = Feed::new(9, 0, vec![], 0);
        let (relayed, relay) = feed.reader().relayed();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let relaying = runtime.spawn(relay);
        let hear = |number| {
            let mut reader = relayed.clone();
            async move { reader.news(number - 1).await && reader.after(0, 99).items.len() as u64 >= number }
        };
        let writer = std::thread::spawn(move || (1..=9).for_each(|number| feed.publish(items([number]))));
        for number in 1..=9 {
            assert!(runtime.block_on(hear(number)));
        }
        writer.join().unwrap();
        runtime.block_on(relaying).unwrap();
        assert!(!runtime.block_on(hear(10)));
    }

    #[test]
    fn readers_end_with_their_feed_and_not_before_its_last_word() {
        let feed = Feed::new(3, 0, vec![], 0);
        let mut reader = feed.reader();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let writer = std::thread::spawn(move || feed.publish(items([1])));
        assert!(runtime.block_on(reader.news(0)));
        writer.join().unwrap();
        assert!(!runtime.block_on(reader.news(1)));
        let (mut relayed, relay) = reader.clone().relayed();
        runtime.block_on(relay);
        assert!(!runtime.block_on(relayed.news(1)));
        assert_eq!(reader.after(0, 9).items, items([1]));
    }
}
