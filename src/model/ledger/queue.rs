//! Versions that wait for their copy.

use roaring::RoaringTreemap;

use crate::model::file_version::VersionId;

/// Versions, the oldest first. Their numbers follow each other: a million of them take some hundred kilobytes.
#[derive(Default)]
pub(super) struct Queue(RoaringTreemap);

impl Queue {
    pub(super) fn insert(&mut self, id: VersionId) {
        self.0.insert(id.0);
    }

    pub(super) fn remove(&mut self, id: VersionId) {
        self.0.remove(id.0);
    }

    pub(super) fn pop_first(&mut self) -> Option<VersionId> {
        let first = self.0.min()?;
        self.0.remove(first);
        Some(VersionId(first))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<VersionId> for Queue {
    fn extend<T: IntoIterator<Item = VersionId>>(&mut self, ids: T) {
        ids.into_iter().for_each(|id| self.insert(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_comes_first_whatever_the_order_they_came_in() {
        let mut queue = Queue::default();
        queue.extend([u64::MAX, 7, 3_000_000_000, 5, 70_000].map(VersionId));
        queue.insert(VersionId(5));
        queue.remove(VersionId(7));
        queue.remove(VersionId(8));
        let all: Vec<u64> = std::iter::from_fn(|| queue.pop_first()).map(|id| id.0).collect();
        assert_eq!(all, [5, 70_000, 3_000_000_000, u64::MAX]);
        assert!(queue.is_empty());
    }
}
