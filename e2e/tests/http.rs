//! HTTP to the letter: a row of a table is a request and the answers that docs/http.md gives it.

mod framing;
mod malformed;
mod payments;
mod routing;
mod summary;
