//! Bytes of a request to raw events: compression, framing, and what the sender wrapped around its events.
//!
//! Pure and synchronous: no I/O, no clock. In the order of a body's way: [`decompress`], [`is_binary`], [`Framing`],
//! whoever takes the events ([`Taker`]).
//! Everything that Vector's `http` sink can send is taken; what an event means is `event`'s work.
//!
//! Promises: no input panics, recurses or takes more than linear time; memory that grows with the body is asked for
//! before it is taken ([`Room`]); one unreadable event costs no other event its
//! place wherever its end can be found; everything but separators and the wrapper is handed on,
//! as a [`Piece`] or as an object that is read where it stands.

mod binary;
mod charset;
mod compression;
mod content_type;
mod envelope;
mod piece;
mod room;
mod scan;
mod split;
mod stream;
mod text;

pub use self::binary::{Undecodable, is_binary};
pub use self::compression::{DecompressError, decompress, may_expand};
pub use self::piece::{BadReason, Enough, Piece, READ_IN_PLACE_BYTES_MAX, Taker};
pub use self::room::Room;
pub use self::split::{Framing, SplitSettings};

#[cfg(any(test, feature = "targets"))]
mod both_ways;
#[cfg(any(test, feature = "targets"))]
pub(crate) use self::both_ways::cut_both_ways;

#[cfg(test)]
mod recordings;
