//! What clients were told of every payment of a round.
//!
//! An entry is one id with one amount. Any number of clients may ask for it any number of times; all that they were told
//! is added up. A purge begins a new world: entries of the one before are history, unless a client asks for them again
//! afterwards ([`Book::renew`]).

use crate::told::Told;
use std::collections::HashMap;
use wire::{Cents, PaymentId};

/// The place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(usize);

/// One payment and what its clients were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: PaymentId,
    /// Its amount.
    pub cents: Cents,
    /// How many purges were before it was last asked for.
    pub world: u32,
    /// Answers 202: recorded.
    pub recorded: u32,
    /// Other 2xx: it was accepted before.
    pub known: u32,
    /// Answers 503 or 408: nothing was recorded.
    pub refused: u32,
    /// Any other answer to a payment that nothing is wrong with.
    pub rejected: u32,
    /// No answer, or one that leaves it open.
    pub unknown: u32,
    /// Answers 2xx to the same id with another amount.
    pub misaccepted: u32,
}

impl Entry {
    fn new(id: PaymentId, cents: Cents, world: u32) -> Self {
        let [recorded, known, refused, rejected, unknown, misaccepted] = [0; 6];
        Self { id, cents, world, recorded, known, refused, rejected, unknown, misaccepted }
    }

    /// True once a client got a 2xx.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.recorded + self.known > 0
    }

    /// True when every answer said that nothing was recorded.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.is_accepted() && self.unknown == 0 && self.refused + self.rejected > 0
    }
}

/// All payments of a round.
#[derive(Debug, Default)]
pub struct Book {
    entries: Vec<Entry>,
    world: u32,
}

impl Book {
    /// Enters a payment that clients are about to ask for.
    pub fn open(&mut self, id: PaymentId, cents: Cents) -> Ticket {
        self.entries.push(Entry::new(id, cents, self.world));
        Ticket(self.entries.len() - 1)
    }

    /// One payment.
    #[must_use]
    pub fn entry(&self, ticket: Ticket) -> &Entry {
        &self.entries[ticket.0]
    }

    /// Enters what a client was told.
    pub fn tell(&mut self, ticket: Ticket, status: Option<u16>) -> Told {
        let entry = &mut self.entries[ticket.0];
        let told = Told::of(status);
        *match told {
            Told::Accepted if status == Some(202) => &mut entry.recorded,
            Told::Accepted => &mut entry.known,
            Told::Refused => &mut entry.refused,
            Told::Rejected => &mut entry.rejected,
            Told::Unknown => &mut entry.unknown,
        } += 1;
        told
    }

    /// Enters a 2xx to the same id with another amount.
    pub fn misaccept(&mut self, ticket: Ticket) {
        self.entries[ticket.0].misaccepted += 1;
    }

    /// Everything was purged.
    pub fn begin_world(&mut self) {
        self.world += 1;
    }

    /// A payment of a world before is asked for again: what was told of it then no longer counts.
    pub fn renew(&mut self, ticket: Ticket) {
        let Entry { id, cents, .. } = self.entries[ticket.0];
        self.entries[ticket.0] = Entry::new(id, cents, self.world);
    }

    /// All payments.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Accepted payments of this world, with their tickets.
    pub fn accepted(&self) -> impl Iterator<Item = (Ticket, &Entry)> {
        let tickets = self.entries.iter().enumerate().map(|(at, entry)| (Ticket(at), entry));
        tickets.filter(|(_, entry)| entry.world == self.world && entry.is_accepted())
    }

    /// The world of now.
    #[must_use]
    pub fn world(&self) -> u32 {
        self.world
    }

    /// The entries by id.
    #[must_use]
    pub fn by_id(&self) -> HashMap<PaymentId, &Entry> {
        self.entries.iter().map(|entry| (entry.id, entry)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_always_refused_is_refused() {
        let mut book = Book::default();
        let ticket = book.open(PaymentId(1), Cents(5));
        book.tell(ticket, Some(503));
        assert!(book.entry(ticket).is_refused());
        book.tell(ticket, None);
        assert!(!book.entry(ticket).is_refused() && !book.entry(ticket).is_accepted());
        book.tell(ticket, Some(200));
        assert!(book.entry(ticket).is_accepted());
    }

    #[test]
    fn a_payment_that_is_asked_for_again_after_a_purge_begins_anew() {
        let mut book = Book::default();
        let tickets = [1, 2].map(|id| book.open(PaymentId(id), Cents(5)));
        for ticket in tickets {
            book.tell(ticket, Some(202));
        }
        book.begin_world();
        assert_eq!(book.accepted().count(), 0);
        book.renew(tickets[0]);
        let worlds: Vec<(u128, u32, u32)> =
            book.entries().iter().map(|entry| (entry.id.0, entry.world, entry.recorded)).collect();
        assert_eq!(worlds, [(1, 1, 0), (2, 0, 1)]);
    }
}
