//! What the test of malformed requests is made of: [`kinds`] of them, [`mutants`] of those and of valid ones, a
//! [`reference`] parser that says what a stream of bytes means, an [`edge`] beside it in this process, [`answers`] read
//! strictly, and a [`witness`] in the place of an api, which tells what lb sends on.

pub(crate) mod answers;
mod edge;
pub(crate) mod kinds;
pub(crate) mod mutants;
pub(crate) mod payment;
pub(crate) mod reference;
pub(crate) mod witness;
