//! Bytes of a request to raw events: compression, framing, and what the sender wrapped around its events.
//!
//! Pure and synchronous: no I/O, no clock. In the order of a body's way: [`decompress`], [`is_binary`], [`split`].
//! Everything that Vector's `http` sink can send is taken; what an event means is `event`'s work.
//!
//! Promises: no input panics, recurses or takes more than linear time; memory that grows with the body is asked for
//! before it is taken ([`Room`]); one unreadable event costs no other event its
//! place wherever its end can be found; everything but separators and the wrapper ends in some [`Piece`].

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
pub use self::piece::{BadReason, Piece};
pub use self::room::Room;
pub use self::split::{SplitError, SplitSettings, around, split};

#[cfg(test)]
mod recordings;
