//! A growing array that never moves what it holds, and that can be frozen in no time.
//!
//! A `Vec` of a million payments doubles by copying 32 MB, a pause that a client would feel, and holds both copies
//! while it does. This one grows by a chunk of [`CHUNK_LEN`] entries: the pause and the waste are bounded by one chunk.
//!
//! A frozen copy ([`Chunked::freeze`]) shares the chunks. While it lives, the first change of a shared chunk copies that
//! chunk, some 50 us for 512 KiB; chunks that nobody changes are never copied. That is how a snapshot is taken of a
//! million payments while they go on living.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// Entries in one chunk; 16,384 payments are 512 KiB.
const CHUNK_LEN: usize = 1 << 14;

/// An array in chunks.
#[derive(Debug)]
pub struct Chunked<T> {
    chunks: Vec<Arc<Chunk<T>>>,
    len: usize,
}

/// At most [`CHUNK_LEN`] entries, with room for all of them.
#[derive(Debug)]
struct Chunk<T>(Vec<T>);

impl<T> Chunk<T> {
    fn new() -> Self {
        Self(Vec::with_capacity(CHUNK_LEN))
    }
}

impl<T: Clone> Clone for Chunk<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.0.extend_from_slice(&self.0);
        copy
    }
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T> Chunked<T> {
    /// How many entries it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy that stays as it is now, whatever happens to this one.
    #[must_use]
    pub fn freeze(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Option<&T> {
        self.chunks.last().and_then(|chunk| chunk.0.last())
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| &chunk.0)
    }
}

impl<T: Clone> Chunked<T> {
    /// Appends an entry.
    pub fn push(&mut self, entry: T) {
        if self.len.is_multiple_of(CHUNK_LEN) {
            self.chunks.push(Arc::new(Chunk::new()));
        }
        let chunk = self.chunks.last_mut().expect("a chunk was pushed when the last was full");
        Arc::make_mut(chunk).0.push(entry);
        self.len += 1;
    }
}

impl<T: Clone> Extend<T> for Chunked<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, entries: I) {
        entries.into_iter().for_each(|entry| self.push(entry));
    }
}

impl<T> Index<usize> for Chunked<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.chunks[at / CHUNK_LEN].0[at % CHUNK_LEN]
    }
}

impl<T: Clone> IndexMut<usize> for Chunked<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut Arc::make_mut(&mut self.chunks[at / CHUNK_LEN]).0[at % CHUNK_LEN]
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
}
