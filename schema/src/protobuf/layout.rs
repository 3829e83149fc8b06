//! The order of a type's fields on the wire.

use crate::types::Type;

/// The fields of one message by number; a struct embedded in it is a message of its own. Fields that are not on the wire are left out.
#[derive(Debug)]
pub(crate) struct Layout(Box<[(u16, Part)]>);

/// What a number stands for.
#[derive(Debug)]
pub(crate) enum Part {
    /// Index of the field in its type.
    Field(usize),
    /// An embedded struct.
    Embedded(Layout),
}

impl Layout {
    /// Of a type of its own.
    pub(crate) fn of(ty: &Type) -> Layout {
        Layout::level(ty, 0)
    }

    /// Of the struct itself (0), or of one embedded in it.
    fn level(ty: &Type, embed: u8) -> Layout {
        let fields = ty.fields.iter().enumerate().filter(|(_, f)| f.embed == embed && f.number > 0).map(|(at, f)| (f.number, Part::Field(at)));
        let embeds = ty.embeds.iter().zip(1u8..).filter(|(e, _)| e.parent == embed && e.number > 0);
        let mut parts: Vec<(u16, Part)> = fields.chain(embeds.map(|(e, at)| (e.number, Part::Embedded(Layout::level(ty, at))))).collect();
        parts.sort_by_key(|part| part.0);
        Layout(parts.into())
    }

    /// By ascending number.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (u16, &Part)> {
        self.0.iter().map(|(number, part)| (*number, part))
    }

    pub(super) fn part(&self, number: u64) -> Option<&Part> {
        self.0.binary_search_by_key(&number, |part| part.0.into()).ok().and_then(|at| self.0.get(at)).map(|(_, part)| part)
    }
}
