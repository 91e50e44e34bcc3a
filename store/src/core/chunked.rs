//! A growing array that never moves what it holds, and that can be frozen in no time.
//!
//! A `Vec` of a million payments doubles by copying 32 MB, a pause that a client would feel, and holds both copies
//! while it does. This one grows by a chunk of [`CHUNK_LEN`] entries: the pause and the waste are bounded by one chunk.
//!
//! A frozen copy ([`Chunked::freeze`]) shares the full chunks and copies the one at the end, at most 512 KiB or some 50 us.
//! While it lives, the first change of a shared chunk copies that chunk; unchanged chunks are never copied.
//! That is how a snapshot is taken of a million payments while they go on living.
//!
//! The chunk at the end is not shared, so that to change it takes no atomic instruction: one would wait for
//! every write before it, and those into the index miss the cache. Nearly all changes are there, and in recovery all are.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// Entries in one chunk; 16,384 payments are 512 KiB.
const CHUNK_LEN: usize = 1 << 14;

/// An array in chunks.
#[derive(Debug)]
pub struct Chunked<T> {
    /// The full ones.
    chunks: Vec<Arc<Vec<T>>>,
    /// The one at the end; empty only when there is no entry at all.
    tail: Vec<T>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), tail: Vec::new() }
    }
}

impl<T> Chunked<T> {
    /// How many entries it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.len() * CHUNK_LEN + self.tail.len()
    }

    /// True when it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Option<&T> {
        self.tail.last()
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).chain(&self.tail)
    }

    /// Appends an entry.
    pub fn push(&mut self, entry: T) {
        if self.tail.len() == CHUNK_LEN {
            self.chunks.push(Arc::new(std::mem::take(&mut self.tail)));
        }
        if self.tail.is_empty() {
            self.tail.reserve_exact(CHUNK_LEN);
        }
        self.tail.push(entry);
    }
}

impl<T: Clone> Chunked<T> {
    /// Forgets all entries from `len` on.
    pub fn truncate(&mut self, len: usize) {
        while len <= self.chunks.len() * CHUNK_LEN
            && let Some(chunk) = self.chunks.pop()
        {
            self.tail = Arc::unwrap_or_clone(chunk);
        }
        self.tail.truncate(len - self.chunks.len() * CHUNK_LEN);
    }

    /// True while a frozen copy lives that shares entries: to change those would double them.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.chunks.iter().any(|chunk| Arc::strong_count(chunk) > 1)
    }

    /// A copy that stays as it is now, whatever happens to this one.
    #[must_use]
    pub fn freeze(&self) -> Self {
        Self { chunks: self.chunks.clone(), tail: self.tail.clone() }
    }
}

impl<T> Extend<T> for Chunked<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, entries: I) {
        entries.into_iter().for_each(|entry| self.push(entry));
    }
}

impl<T> Index<usize> for Chunked<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        match self.chunks.get(at / CHUNK_LEN) {
            Some(chunk) => &chunk[at % CHUNK_LEN],
            None => &self.tail[at - self.chunks.len() * CHUNK_LEN],
        }
    }
}

impl<T: Clone> IndexMut<usize> for Chunked<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        let sealed_len = self.chunks.len() * CHUNK_LEN;
        match self.chunks.get_mut(at / CHUNK_LEN) {
            Some(chunk) => &mut Arc::make_mut(chunk)[at % CHUNK_LEN],
            None => &mut self.tail[at - sealed_len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_copy_stays_as_it_was_while_the_array_goes_on() {
        let mut array = Chunked::default();
        array.extend(0..CHUNK_LEN + 5);
        let frozen = array.freeze();
        array[0] = 99;
        array[CHUNK_LEN + 4] = 99;
        array.extend(0..3);
        assert!(frozen.iter().copied().eq(0..CHUNK_LEN + 5));
        assert_eq!((array[0], array[1], array[CHUNK_LEN + 4]), (99, 1, 99));
        assert_eq!((frozen.len(), array.len()), (CHUNK_LEN + 5, CHUNK_LEN + 8));
        assert_eq!(array.last(), Some(&2));
    }

    #[test]
    fn entries_stay_in_order_over_every_boundary() {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 2 * CHUNK_LEN, 2 * CHUNK_LEN + 1] {
            let mut array = Chunked::default();
            array.extend(0..len);
            assert_eq!(
                (array.len(), array.is_empty(), array.last().copied()),
                (len, len == 0, len.checked_sub(1))
            );
            assert!(array.iter().copied().eq(0..len) && (0..len).all(|at| array[at] == at), "{len} entries");
        }
    }

    #[test]
    fn a_shortened_array_is_one_that_never_was_longer() {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 2 * CHUNK_LEN, 2 * CHUNK_LEN + 1] {
            let mut array = Chunked::default();
            array.extend(0..2 * CHUNK_LEN + 1);
            let frozen = array.freeze();
            assert!(array.is_shared());
            array.truncate(len);
            assert_eq!((array.len(), array.last().copied()), (len, len.checked_sub(1)));
            array.push(7);
            assert!(array[len] == 7 && array.iter().copied().take(len).eq(0..len), "{len} entries");
            assert_eq!(frozen.len(), 2 * CHUNK_LEN + 1);
            drop(frozen);
            assert!(!array.is_shared());
        }
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn an_index_a_chunk_behind_the_end_is_nothing() {
        let mut array = Chunked::default();
        array.extend(0..CHUNK_LEN + 5);
        let _ = array[2 * CHUNK_LEN];
    }
}
