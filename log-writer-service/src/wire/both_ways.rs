//! For tests: a body is cut the same whether its objects are cut out first or read where they stand.

use serde_json::value::RawValue;

use super::{Enough, Framing, Piece, SplitSettings, Taker, Undecodable};
use crate::event::RawEvent;

/// The pieces of a body.
///
/// # Panics
/// If they are not the same in both ways.
pub(crate) fn cut_both_ways<'a>(
    body: &'a str,
    content_type: Option<&str>,
    settings: SplitSettings<'_>,
) -> Result<Vec<Piece<'a>>, Undecodable> {
    let framing = Framing::of(body, content_type, settings)?;
    let (mut cut, mut read) = (Cut::default(), Read::default());
    framing.split(&mut cut);
    framing.split(&mut read);
    assert_eq!(cut.pieces, read.pieces, "read where it stands: {body:?}");
    Ok(cut.pieces)
}

#[derive(Default)]
struct Cut<'a> {
    pieces: Vec<Piece<'a>>,
}

impl<'a> Taker<'a> for Cut<'a> {
    fn read_object(&mut self, _text: &'a str) -> Result<Option<usize>, Enough> {
        Ok(None)
    }

    fn take_piece(&mut self, piece: Piece<'a>) -> Result<(), Enough> {
        self.pieces.push(piece);
        Ok(())
    }
}

/// Reads objects as `serde_json` does.
#[derive(Default)]
struct Read<'a> {
    pieces: Vec<Piece<'a>>,
}

impl<'a> Taker<'a> for Read<'a> {
    fn read_object(&mut self, text: &'a str) -> Result<Option<usize>, Enough> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        let Some(Ok(object)) = values.next() else {
            return Ok(None);
        };
        self.pieces.push(Piece::Event(RawEvent::Object(object.get())));
        Ok(Some(object.get().len()))
    }

    fn take_piece(&mut self, piece: Piece<'a>) -> Result<(), Enough> {
        self.pieces.push(piece);
        Ok(())
    }
}
