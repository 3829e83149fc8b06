//! When two values are equal.

use super::{Error, Run};
use crate::{
    types::ListKind,
    value::{List, Val},
};
use std::rc::Rc;

impl<'a> Run<'_, 'a> {
    /// Whether two values are equal: numbers across types, lists by their kind, everything else only within its type.
    pub(crate) fn equal(&mut self, one: &Val<'a>, other: &Val<'a>) -> Result<bool, Error> {
        self.work(1)?;
        Ok(match (one, other) {
            (Val::Null, Val::Null) => true,
            (Val::String(a), Val::String(b)) => {
                self.work(a.len().min(b.len()) / 16)?;
                **a == **b
            }
            (Val::Type(a), Val::Type(b)) => a == b,
            (Val::Optional(a), Val::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => self.equal(&a.clone(), &b.clone())?,
                _ => false,
            },
            (Val::Opaque(a), Val::Opaque(b)) => Rc::ptr_eq(a, b) || a.equal(b),
            (Val::List(a), Val::List(b)) => self.lists_equal(a, b)?,
            (Val::Map(a), Val::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for key in a.keys() {
                    let key = key.key();
                    match (key.as_ref().and_then(|key| a.get(key)).transpose()?, key.as_ref().and_then(|key| b.get(key)).transpose()?) {
                        (Some(a), Some(b)) if self.equal(&a, &b)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Val::Message(a), Val::Message(b)) => {
                if a.name != b.name || a.fields.len() != b.fields.len() {
                    return Ok(false);
                }
                for (name, value) in &a.fields {
                    match b.fields.iter().find(|(known, _)| known == name) {
                        Some((_, other)) if self.equal(value, other)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => one.compare(other) == Some(std::cmp::Ordering::Equal),
        })
    }

    fn lists_equal(&mut self, one: &List<'a>, other: &List<'a>) -> Result<bool, Error> {
        if one.len() != other.len() {
            return Ok(false);
        }
        // Either side may know that order does not matter.
        let kind = if *one.kind() == ListKind::Atomic { other.kind() } else { one.kind() };
        match kind {
            ListKind::Atomic => {
                for at in 0..one.len() {
                    match (one.get(at).transpose()?, other.get(at).transpose()?) {
                        (Some(a), Some(b)) if self.equal(&a, &b)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            ListKind::Set => {
                for element in one.iter() {
                    if !self.contains(other, &element?)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            ListKind::Map(keys) => {
                let others = other.iter().collect::<Result<Vec<_>, _>>()?;
                for element in one.iter() {
                    let element = element?;
                    let mut same = None;
                    for candidate in &others {
                        if self.same_entry(keys, &element, candidate)? {
                            same = Some(candidate);
                            break;
                        }
                    }
                    match same {
                        Some(same) if self.equal(&element, same)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
        }
    }

    pub(crate) fn contains(&mut self, list: &List<'a>, wanted: &Val<'a>) -> Result<bool, Error> {
        for element in list.iter() {
            if self.equal(&element?, wanted)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether two elements of a list map are the same entry: JSON by its keys.
    pub(crate) fn same_entry(&mut self, keys: &[String], one: &Val<'a>, other: &Val<'a>) -> Result<bool, Error> {
        for key in keys {
            let escaped = crate::types::escape(key).unwrap_or_default();
            let (a, b) = (self.present(one, &escaped)?, self.present(other, &escaped)?);
            let same = match (&a, &b) {
                (None, None) => true,
                (Some(a), Some(b)) => self.equal(a, b)?,
                _ => false,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
