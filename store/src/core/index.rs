//! Finds a payment by its id.
//!
//! Clients choose the ids, so the hash is keyed: without the key no client can choose ids that collide. The table is split
//! into [`SHARDS`] parts that grow one by one, so that no accept waits for the whole of a million entries to move, and
//! it holds ordinals only: the ids stand in the payments themselves.

use super::queue::Ordinal;
use hashbrown::HashTable;
use wire::PaymentId;

/// Parts of the table. With a million payments one part holds 4,000, which move in some 50 us.
const SHARDS: usize = 256;

/// Memory of one place in the table, in bytes: an ordinal and a byte of hashbrown's own.
const PLACE_BYTES: usize = size_of::<u32>() + 1;

/// Memory of [`WORST_LEN`] ids in bytes, just after their part has doubled. A part is full at seven eighths of its places.
pub(super) const WORST_BYTES: usize = 16 * PLACE_BYTES;

/// Ids in 16 places just after a part has doubled.
pub(super) const WORST_LEN: usize = 7;

/// A hash table from id to ordinal.
#[derive(Debug)]
pub struct Index {
    shards: Vec<HashTable<u32>>,
    key: [u64; 2],
}

impl Index {
    /// An empty table whose hash cannot be foreseen without `key`.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect(), key }
    }

    /// The ordinal under which `id` was inserted; `id_of` tells the id of an ordinal.
    #[must_use]
    pub fn find(&self, id: PaymentId, id_of: impl Fn(Ordinal) -> PaymentId) -> Option<Ordinal> {
        let hash = self.hash(id);
        self.shards[shard(hash)].find(hash, |&number| id_of(Ordinal(number)) == id).copied().map(Ordinal)
    }

    /// Inserts an id that is not there yet.
    pub fn insert(&mut self, id: PaymentId, ordinal: Ordinal, id_of: impl Fn(Ordinal) -> PaymentId) {
        let hash = self.hash(id);
        let key = self.key;
        self.shards[shard(hash)]
            .insert_unique(hash, ordinal.0, |&number| keyed_hash(key, id_of(Ordinal(number))));
    }

    /// Makes room for so many ids, so that they can be inserted without a table growing on the way.
    pub fn reserve(&mut self, len: usize) {
        // The ids spread evenly: a sixteenth more is enough for nearly every part.
        let each = len / SHARDS + len / SHARDS / 16;
        self.shards.iter_mut().for_each(|shard| shard.reserve(each, |_| unreachable!("the table is empty")));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.shards.iter_mut().for_each(|shard| *shard = HashTable::new());
    }

    /// Its secret.
    #[must_use]
    pub fn key(&self) -> [u64; 2] {
        self.key
    }

    fn hash(&self, id: PaymentId) -> u64 {
        keyed_hash(self.key, id)
    }
}

/// The middle bits: the table itself uses the lowest for the bucket and the highest for its tags.
#[expect(clippy::cast_possible_truncation, reason = "eight bits are wanted")]
fn shard(hash: u64) -> usize {
    usize::from((hash >> 40) as u8)
}

/// The folded product of the two halves, each mixed with a half of the key: the step of the wyhash family.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
fn keyed_hash(key: [u64; 2], id: PaymentId) -> u64 {
    let (low, high) = (id.0 as u64, (id.0 >> 64) as u64);
    let product = u128::from(low ^ key[0]) * u128::from(high ^ key[1]);
    (product as u64) ^ ((product >> 64) as u64)
}
