//! Which client is with which api, in mode hand-off, and where the next one goes. Pure: no socket, no clock.
//!
//! Every client has a slot, which is its word in the page, and lb's copy of its socket. It waits for an api or is with
//! one; the api with the fewest clients gets the next, among equals it goes round.
//!
//! ```text
//!                    offer                       the connection is over
//!   admit --> WAITING -----> WITH an api --------------------------------> gone
//!                ^  '-- a second passes, a request waits: 503 --> gone
//!                |  '-- a second passes, the client has gone --> gone
//!                |                    |
//!                '--- released, or ---'--- the api has ended and the client
//!                     the api has ended     is not at rest: reset --> gone
//!                     and it is at rest
//! ```

use edge::handoff::{GENERATION_MASK, SlotState, Ticket};
use std::collections::VecDeque;

/// How long a client with a request waits for any api.
pub const NO_API_TIMEOUT_MS: u64 = 1_000;

/// How often in a row an api may end, or drain, within [`NO_API_TIMEOUT_MS`] of taking a client before that client's second is not begun
/// anew: apis that end at once hand it on without end.
const RETURNS_MAX: u8 = 3;

/// How long an api is passed over that had no room for a client: a connection that closes gives it some.
pub const REFUSED_MS: u64 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    Waiting,
    With(usize),
}

#[derive(Debug)]
struct Client<C> {
    copy: C,
    whereabouts: Whereabouts,
    /// Since when it is without an api, if it is; an api that had no room for it was none.
    since_ms: u64,
    /// It had sent something when its api ended: that api may have asked the store for it. No later answer of an api is seen
    /// from here, so this stays.
    is_bereft: bool,
    /// When it was last handed off, and how often in a row it came back soon.
    handed_off_ms: u64,
    returns: u8,
}

impl<C> Client<C> {
    fn new(copy: C, whereabouts: Whereabouts, now_ms: u64, is_bereft: bool) -> Self {
        Self { copy, whereabouts, since_ms: now_ms, is_bereft, handed_off_ms: now_ms, returns: 0 }
    }

    /// Its api has let go of it: its second begins anew, unless that has happened too often in too short a time.
    fn wait_again(&mut self, now_ms: u64) {
        self.whereabouts = Whereabouts::Waiting;
        let was_short = now_ms.saturating_sub(self.handed_off_ms) < NO_API_TIMEOUT_MS;
        self.returns = if was_short { self.returns.saturating_add(1) } else { 0 };
        if self.returns <= RETURNS_MAX {
            self.since_ms = now_ms;
        }
    }
}

#[derive(Debug)]
struct Slot<C> {
    /// Counts the hand-offs of this slot.
    generation: u32,
    client: Option<Client<C>>,
}

/// What a waiting client has sent, as a look at its socket shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It has sent nothing yet.
    Silent,
    /// It has sent something.
    Asking,
    /// It has gone.
    Gone,
}

/// What is known of an api.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its control socket is there.
    pub is_connected: bool,
    /// It wants no more clients.
    pub is_draining: bool,
    /// Its control socket takes nothing more for now.
    pub is_full: bool,
    /// It gave back a client that it had no room for: until then it is passed over.
    pub refused_until_ms: u64,
    /// Clients that are with it.
    pub held: usize,
}

/// A client that has waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue<C> {
    /// lb's copy of its socket.
    pub copy: C,
    /// An api that has ended may have asked the store for its request.
    pub is_bereft: bool,
}

/// A client on its way to an api.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Under which its word is written, and its socket sent.
    pub ticket: Ticket,
    /// To which api.
    pub backend: usize,
    /// An api that has ended may have asked the store for its request.
    pub is_bereft: bool,
}

/// All clients, by slot. `C` is lb's copy of a socket.
#[derive(Debug)]
pub struct Copies<C> {
    slots: Vec<Slot<C>>,
    free: Vec<u32>,
    waiting: VecDeque<u32>,
    backends: Vec<Standing>,
    turn: usize,
    clients_max: usize,
}

impl<C> Copies<C> {
    /// So many slots for at most `clients_max` clients of so many apis, none of which is connected.
    #[must_use]
    pub fn new(slots: usize, backends: usize, clients_max: usize) -> Self {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        Self {
            slots: (0..slots).map(|_| Slot { generation: 0, client: None }).collect(),
            free: (0..slots).rev().collect(),
            waiting: VecDeque::new(),
            backends: vec![Standing::default(); backends],
            turn: 0,
            clients_max,
        }
    }

    /// Clients that are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Clients that no api has.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// What is known of the apis.
    #[must_use]
    pub fn backends(&self) -> &[Standing] {
        &self.backends
    }

    // Clients.

    /// A client has come.
    ///
    /// # Errors
    /// The copy, when there are as many as may be, or no slot for it.
    pub fn admit(&mut self, copy: C, now_ms: u64) -> Result<(), C> {
        if self.len() >= self.clients_max {
            return Err(copy);
        }
        let Some(slot) = self.free.pop() else { return Err(copy) };
        let client = Client::new(copy, Whereabouts::Waiting, now_ms, false);
        self.slots[slot as usize].client = Some(client);
        self.waiting.push_back(slot);
        Ok(())
    }

    /// The connection of the client in this slot is over, if it has ended under its last ticket. Returns the copy.
    pub fn remove(&mut self, slot: u32, has_ended: impl FnOnce(Ticket) -> bool) -> Option<C> {
        let place = self.slots.get_mut(slot as usize)?;
        let Whereabouts::With(backend) = place.client.as_ref()?.whereabouts else { return None };
        if !has_ended(Ticket { slot, generation: place.generation }) {
            return None;
        }
        self.backends[backend].held -= 1;
        self.free.push(slot);
        place.client.take().map(|client| client.copy)
    }

    /// The client that has waited longest, and the api that it goes to. `None` when there is no client or no api.
    pub fn offer(&mut self, now_ms: u64) -> Option<(Offer, &C)> {
        if self.waiting.is_empty() {
            return None;
        }
        let backend = self.pick(now_ms)?;
        let slot = self.waiting.pop_front()?;
        let place = &mut self.slots[slot as usize];
        place.generation = (place.generation + 1) & GENERATION_MASK;
        let ticket = Ticket { slot, generation: place.generation };
        let client = place.client.as_mut().expect("who waits is there");
        client.whereabouts = Whereabouts::With(backend);
        client.handed_off_ms = now_ms;
        self.backends[backend].held += 1;
        Some((Offer { ticket, backend, is_bereft: client.is_bereft }, &client.copy))
    }

    fn pick(&mut self, now_ms: u64) -> Option<usize> {
        let count = self.backends.len();
        self.turn = self.turn.wrapping_add(1);
        let round = (0..count).map(|step| (self.turn + step) % count);
        let takes = |standing: &Standing| {
            let has_room = !standing.is_full && standing.refused_until_ms <= now_ms;
            standing.is_connected && !standing.is_draining && has_room
        };
        round.filter(|at| takes(&self.backends[*at])).min_by_key(|at| self.backends[*at].held)
    }

    /// The api did not take it, or has let go of it: another one is to. False for a ticket that is void.
    pub fn take_back(&mut self, ticket: Ticket, now_ms: u64) -> bool {
        let Some(place) = self.slots.get_mut(ticket.slot as usize) else { return false };
        let Some(client) = place.client.as_mut().filter(|_| place.generation == ticket.generation) else {
            return false;
        };
        let Whereabouts::With(backend) = client.whereabouts else { return false };
        let standing = &mut self.backends[backend];
        standing.held -= 1;
        if standing.is_draining {
            client.wait_again(now_ms);
        } else {
            client.whereabouts = Whereabouts::Waiting;
            standing.refused_until_ms = now_ms + REFUSED_MS;
        }
        // It has waited already: it comes before those that have just come.
        self.waiting.push_front(ticket.slot);
        true
    }

    /// Lets go of clients that have waited for too long. It returns those with a request, and not those that have left.
    /// `look` looks at the socket.
    pub fn take_overdue(&mut self, now_ms: u64, look: impl Fn(&C) -> Waits) -> Vec<Overdue<C>> {
        let mut overdue = Vec::new();
        let (slots, free) = (&mut self.slots, &mut self.free);
        self.waiting.retain(|slot| {
            let place = &mut slots[*slot as usize];
            let client = place.client.as_mut().expect("who waits is there");
            if now_ms.saturating_sub(client.since_ms) < NO_API_TIMEOUT_MS {
                return true;
            }
            let waits = look(&client.copy);
            if waits == Waits::Silent {
                client.since_ms = now_ms;
                return true;
            }
            let gone = place.client.take().filter(|_| waits == Waits::Asking);
            overdue.extend(gone.map(|Client { copy, is_bereft, .. }| Overdue { copy, is_bereft }));
            free.push(*slot);
            false
        });
        overdue
    }

    /// Every client: its slot with the generation of its last hand-off, the api that has it, the copy.
    pub fn each(&self) -> impl Iterator<Item = (Ticket, Option<usize>, &C)> {
        (0_u32..).zip(&self.slots).filter_map(|(slot, place)| {
            let client = place.client.as_ref()?;
            let backend = match client.whereabouts {
                Whereabouts::Waiting => None,
                Whereabouts::With(backend) => Some(backend),
            };
            Some((Ticket { slot, generation: place.generation }, backend, &client.copy))
        })
    }

    /// Takes up, before any client has come, where the balancer before this one was: `generation` tells how often each
    /// slot was handed off.
    pub fn take_up(
        &mut self,
        generation: impl Fn(u32) -> u32,
        clients: impl IntoIterator<Item = (Ticket, Option<usize>, C)>,
        now_ms: u64,
    ) {
        for (slot, place) in (0_u32..).zip(&mut self.slots) {
            place.generation = generation(slot);
        }
        for (ticket, backend, copy) in clients {
            let Some(place) = self.slots.get_mut(ticket.slot as usize) else { continue };
            let whereabouts = match backend {
                None => {
                    self.waiting.push_back(ticket.slot);
                    Whereabouts::Waiting
                }
                Some(backend) => {
                    self.backends[backend].held += 1;
                    Whereabouts::With(backend)
                }
            };
            place.generation = ticket.generation;
            // The balancer before this one has not said which of them are.
            place.client = Some(Client::new(copy, whereabouts, now_ms, true));
        }
        let slots = &self.slots;
        self.free.retain(|slot| slots[*slot as usize].client.is_none());
    }

    // Apis.

    /// There is one more. Tells which it is.
    pub fn add_backend(&mut self) -> usize {
        self.backends.push(Standing::default());
        self.backends.len() - 1
    }

    /// Its control socket is there.
    pub fn connect(&mut self, backend: usize) {
        self.backends[backend] = Standing { is_connected: true, ..Standing::default() };
    }

    /// It wants no more clients.
    pub fn drain(&mut self, backend: usize) {
        self.backends[backend].is_draining = true;
    }

    /// Whether its control socket takes more.
    pub fn set_full(&mut self, backend: usize, is_full: bool) {
        self.backends[backend].is_full = is_full;
    }

    /// It has ended. Its clients at rest wait for another one, those whose connection is over are gone, the others are
    /// returned, to be reset. `look` looks at the socket of one at rest.
    pub fn end(
        &mut self,
        backend: usize,
        now_ms: u64,
        read: impl Fn(Ticket) -> Option<SlotState>,
        look: impl Fn(&C) -> Waits,
    ) -> Ended<C> {
        let mut ended = Ended { moved: 0, reset: Vec::new() };
        for (slot, place) in (0_u32..).zip(&mut self.slots) {
            let Some(client) = &mut place.client else { continue };
            if client.whereabouts != Whereabouts::With(backend) {
                continue;
            }
            let says = read(Ticket { slot, generation: place.generation });
            if says == Some(SlotState::AtRest) {
                // What comes from now on that api has not seen; and where nothing has come, all is answered.
                let has_asked = look(&client.copy) != Waits::Silent;
                if !has_asked {
                    client.returns = 0;
                }
                client.wait_again(now_ms);
                client.is_bereft |= has_asked;
                self.waiting.push_back(slot);
                ended.moved += 1;
            } else {
                let gone = place.client.take().map(|client| client.copy);
                ended.reset.extend(gone.filter(|_| says != Some(SlotState::Ended)));
                self.free.push(slot);
            }
        }
        self.backends[backend] = Standing::default();
        ended
    }
}

/// What an api leaves.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended<C> {
    /// Clients that go to another one.
    pub moved: usize,
    /// Clients whose last answer is unknown.
    pub reset: Vec<C>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clients, "a", "b", "c", and two apis that are there.
    fn three() -> Copies<&'static str> {
        let mut copies = Copies::new(3, 2, 3);
        copies.connect(0);
        copies.connect(1);
        for name in ["a", "b", "c"] {
            copies.admit(name, 0).unwrap();
        }
        copies
    }

    fn offers<C: Copy>(copies: &mut Copies<C>) -> Vec<(C, usize, Ticket)> {
        let mut offers = Vec::new();
        while let Some((offer, copy)) = copies.offer(0) {
            offers.push((*copy, offer.backend, offer.ticket));
        }
        offers
    }

    fn held<C>(copies: &Copies<C>) -> Vec<usize> {
        copies.backends().iter().map(|backend| backend.held).collect()
    }

    #[test]
    fn clients_go_to_the_api_with_the_fewest() {
        let mut copies = three();
        assert_eq!(offers(&mut copies).len(), 3);
        let (most, fewest) = if held(&copies) == [2, 1] { (0, 1) } else { (1, 0) };
        assert_eq!(copies.admit("d", 0), Err("d"), "three slots");
        let of_most = copies.each().find(|(_, api, _)| *api == Some(most)).unwrap().0;
        assert!(copies.remove(of_most.slot, |_| false).is_none(), "it has not ended");
        assert!(copies.remove(of_most.slot, |ticket| ticket == of_most).is_some());
        assert!(copies.remove(of_most.slot, |_| true).is_none(), "the slot is empty");
        copies.admit("d", 0).unwrap();
        assert!(copies.remove(of_most.slot, |_| true).is_none(), "the next one waits");
        let next = offers(&mut copies)[0].2;
        assert_eq!(next, Ticket { generation: of_most.generation + 1, ..of_most });
        assert!(
            copies.remove(of_most.slot, |ticket| ticket == of_most).is_none(),
            "the word of the one before"
        );
        assert_eq!(held(&copies)[most] + held(&copies)[fewest], 3);
        assert!(held(&copies).iter().all(|held| *held > 0));
        assert!(copies.remove(3, |_| true).is_none(), "no such slot");
    }

    #[test]
    fn apis_that_end_at_once_do_not_hand_a_client_on_without_end() {
        let mut copies = Copies::new(1, 1, 1);
        copies.admit("a", 0).unwrap();
        let mut now_ms = 0;
        let overdue = loop {
            copies.connect(0);
            assert!(copies.offer(now_ms).is_some());
            now_ms += 300;
            copies.end(0, now_ms, |_| Some(SlotState::AtRest), |_| Waits::Asking);
            now_ms += 300;
            let overdue = copies.take_overdue(now_ms, |_| Waits::Asking);
            if !overdue.is_empty() {
                break overdue;
            }
            assert!(now_ms < 60_000, "it is handed on for ever");
        };
        assert_eq!(overdue, [Overdue { copy: "a", is_bereft: true }]);
        assert!(now_ms > NO_API_TIMEOUT_MS * 2, "an api that comes back soon gets it: {now_ms}");
    }

    #[test]
    fn a_client_that_is_answered_in_between_keeps_its_second() {
        let mut copies = Copies::new(1, 1, 1);
        copies.admit("a", 0).unwrap();
        let mut now_ms = 0;
        for _ in 0..20 {
            copies.connect(0);
            assert!(copies.offer(now_ms).is_some());
            now_ms += 250;
            copies.end(0, now_ms, |_| Some(SlotState::AtRest), |_| Waits::Silent);
        }
        assert!(copies.take_overdue(now_ms + NO_API_TIMEOUT_MS - 1, |_| Waits::Asking).is_empty());
        assert_eq!(copies.take_overdue(now_ms + NO_API_TIMEOUT_MS, |_| Waits::Asking), [in_time("a")]);
    }

    #[test]
    fn those_that_were_taken_over_count_against_the_cap() {
        let mut copies = Copies::new(4, 1, 2);
        let ticket = |slot| Ticket { slot, generation: 1 };
        copies.take_up(|_| 0, [(ticket(0), None, "a"), (ticket(1), None, "b"), (ticket(2), None, "c")], 0);
        assert_eq!(copies.len(), 3, "none of them ends");
        assert_eq!(copies.admit("d", 0), Err("d"));
    }

    /// One whose request no api can have asked the store for.
    fn in_time(copy: &str) -> Overdue<&str> {
        Overdue { copy, is_bereft: false }
    }

    #[test]
    fn only_what_had_come_when_its_api_ended_may_have_been_recorded() {
        let mut copies = three();
        copies.drain(1);
        offers(&mut copies);
        let look = |copy: &&str| match *copy {
            "a" => Waits::Asking,
            "b" => Waits::Silent,
            _ => Waits::Gone,
        };
        copies.end(0, 0, |_| Some(SlotState::AtRest), look);
        let mut overdue = copies.take_overdue(NO_API_TIMEOUT_MS, |_| Waits::Asking);
        overdue.sort_by_key(|overdue| overdue.copy);
        let bereft: Vec<(&str, bool)> = overdue.iter().map(|one| (one.copy, one.is_bereft)).collect();
        assert_eq!(bereft, [("a", true), ("b", false), ("c", true)]);
    }

    #[test]
    fn an_api_is_told_of_a_client_whose_request_may_have_been_recorded() {
        let mut copies = three();
        copies.drain(1);
        offers(&mut copies);
        copies.end(0, 0, |_| Some(SlotState::AtRest), |_| Waits::Asking);
        copies.connect(1);
        while let Some((offer, _)) = copies.offer(0) {
            assert!(offer.is_bereft);
        }
    }

    #[test]
    fn an_api_that_is_gone_full_or_draining_gets_no_client() {
        let mut copies = three();
        copies.set_full(0, true);
        copies.drain(1);
        assert!(copies.offer(0).is_none());
        copies.set_full(0, false);
        assert!(offers(&mut copies).iter().all(|(_, backend, _)| *backend == 0));
        assert_eq!(held(&copies), [3, 0]);
    }

    #[test]
    fn clients_at_rest_outlive_their_api_and_the_others_are_reset() {
        let mut copies = three();
        copies.drain(1);
        let before = offers(&mut copies);
        copies.connect(1);
        let busy = before.iter().find(|(name, ..)| *name == "b").unwrap().2;
        let read = |ticket| Some(if ticket == busy { SlotState::Consumed } else { SlotState::AtRest });
        let ended = copies.end(0, 5, read, |_| Waits::Silent);
        assert_eq!(ended, Ended { moved: 2, reset: vec!["b"] });
        let after = offers(&mut copies);
        assert_eq!(
            after.iter().map(|(name, backend, _)| (*name, *backend)).collect::<Vec<_>>(),
            [("a", 1), ("c", 1)]
        );
        for (name, _, ticket) in &after {
            let earlier = before.iter().find(|(other, ..)| other == name).unwrap().2;
            assert_eq!((ticket.slot, ticket.generation), (earlier.slot, earlier.generation + 1));
            assert!(!copies.take_back(earlier, 0), "a void ticket");
        }
        assert_eq!((held(&copies), copies.len(), copies.waiting_len()), (vec![0, 2], 2, 0));
    }

    #[test]
    fn whose_connection_was_over_goes_nowhere_with_its_api() {
        let mut copies = three();
        copies.drain(1);
        let [first, second, _] = offers(&mut copies).try_into().unwrap();
        let read = |ticket| (ticket != second.2).then_some(SlotState::Ended).filter(|_| ticket == first.2);
        assert_eq!(copies.end(0, 0, read, |_| Waits::Silent), Ended { moved: 0, reset: vec!["b", "c"] });
        assert_eq!((held(&copies), copies.len()), (vec![0, 0], 0));
    }

    #[test]
    fn a_client_that_was_given_back_is_the_next_to_go() {
        let mut copies = three();
        let (offer, _) = copies.offer(0).unwrap();
        assert!(copies.take_back(offer.ticket, 7) && !copies.take_back(offer.ticket, 7));
        let (next, copy) = copies.offer(8).map(|(offer, copy)| (offer, *copy)).unwrap();
        assert_eq!(copy, "a");
        assert_ne!(next.backend, offer.backend);
        assert_eq!(next.ticket, Ticket { generation: offer.ticket.generation + 1, ..offer.ticket });
    }

    #[test]
    fn an_api_without_room_does_not_make_a_client_wait_longer() {
        let mut copies = Copies::new(1, 1, 1);
        copies.connect(0);
        copies.admit("a", 0).unwrap();
        let mut now_ms = 0;
        while now_ms < NO_API_TIMEOUT_MS {
            let (offer, _) = copies.offer(now_ms).unwrap();
            assert!(copies.take_back(offer.ticket, now_ms) && copies.offer(now_ms).is_none());
            now_ms += REFUSED_MS;
        }
        assert_eq!(copies.take_overdue(now_ms, |_| Waits::Asking), [in_time("a")]);
    }

    #[test]
    fn another_balancer_goes_on_where_this_one_was() {
        let mut copies = three();
        offers(&mut copies);
        let (slot, freed) = (1, copies.slots[1].generation);
        copies.remove(slot, |_| true).unwrap();
        let waits = copies.each().next().unwrap().0;
        copies.take_back(waits, 0);
        let mut next = Copies::new(3, 2, 3);
        next.connect(0);
        next.connect(1);
        let generation = |slot| copies.slots[slot as usize].generation;
        let clients: Vec<_> = copies.each().map(|(ticket, backend, copy)| (ticket, backend, *copy)).collect();
        next.take_up(generation, clients.clone(), 0);
        assert_eq!(
            next.each().map(|(ticket, backend, copy)| (ticket, backend, *copy)).collect::<Vec<_>>(),
            clients
        );
        assert_eq!((next.len(), next.waiting_len(), held(&next)), (2, 1, held(&copies)));
        next.admit("d", 0).unwrap();
        offers(&mut next);
        assert!(next.each().any(|(ticket, ..)| ticket == Ticket { slot, generation: freed + 1 }));
    }

    #[test]
    fn a_client_with_a_request_waits_for_a_second_and_a_silent_one_until_it_leaves() {
        let mut copies = Copies::new(3, 1, 3);
        for name in ["asking", "silent", "gone"] {
            copies.admit(name, 0).unwrap();
        }
        let look = |name: &&str| match *name {
            "asking" => Waits::Asking,
            "silent" => Waits::Silent,
            _ => Waits::Gone,
        };
        assert!(copies.take_overdue(NO_API_TIMEOUT_MS - 1, look).is_empty());
        assert_eq!(copies.take_overdue(NO_API_TIMEOUT_MS, look), [in_time("asking")]);
        assert_eq!((copies.len(), copies.waiting_len()), (1, 1));
        assert!(
            copies.take_overdue(2 * NO_API_TIMEOUT_MS - 1, |_| Waits::Asking).is_empty(),
            "its second begins anew"
        );
        assert_eq!(copies.take_overdue(2 * NO_API_TIMEOUT_MS, |_| Waits::Asking), [in_time("silent")]);
        assert!(copies.is_empty() && copies.admit("next", 0).is_ok());
    }
}
