//! What types stand for: inference variables, and whether two types agree.

use super::Checker;
use crate::types::Type;

impl Checker<'_> {
    pub(super) fn fresh(&mut self) -> Type {
        self.variables.push(None);
        Type::Var(self.variables.len() as u32 - 1)
    }

    /// With fresh variables for the parameters of a signature.
    pub(super) fn instantiate(&mut self, ty: &Type, fresh: &mut Vec<(char, Type)>) -> Type {
        match ty {
            Type::Param(name) => match fresh.iter().find(|(known, _)| known == name) {
                Some((_, variable)) => variable.clone(),
                None => {
                    let variable = self.fresh();
                    fresh.push((*name, variable.clone()));
                    variable
                }
            },
            Type::List(of) => Type::list(self.instantiate(of, fresh)),
            Type::Optional(of) => Type::optional(self.instantiate(of, fresh)),
            Type::Map(key, value) => Type::map(self.instantiate(key, fresh), self.instantiate(value, fresh)),
            other => other.clone(),
        }
    }

    /// With variables replaced by what they stand for; free ones by `dyn` if asked.
    pub(super) fn substitute(&self, ty: &Type, free_is_dyn: bool) -> Type {
        if !self.step() {
            return Type::Error;
        }
        match ty {
            Type::Var(number) => match self.variables.get(*number as usize) {
                Some(Some(known)) => self.substitute(known, free_is_dyn),
                _ if free_is_dyn => Type::Dyn,
                _ => ty.clone(),
            },
            Type::List(of) => Type::list(self.substitute(of, free_is_dyn)),
            Type::Optional(of) => Type::optional(self.substitute(of, free_is_dyn)),
            Type::Map(key, value) => Type::map(self.substitute(key, free_is_dyn), self.substitute(value, free_is_dyn)),
            Type::Type(Some(of)) => Type::Type(Some(self.substitute(of, free_is_dyn).into())),
            other => other.clone(),
        }
    }

    /// Whether the types agree; what was learnt about variables is kept if they do.
    pub(super) fn assignable(&mut self, one: &Type, other: &Type) -> bool {
        self.all_assignable(std::slice::from_ref(one), std::slice::from_ref(other))
    }

    pub(super) fn all_assignable(&mut self, ones: &[Type], others: &[Type]) -> bool {
        if ones.len() != others.len() {
            return false;
        }
        self.trail.clear();
        let agree = ones.iter().zip(others).all(|(one, other)| self.agree(one, other));
        if !agree {
            while let Some((number, before)) = self.trail.pop() {
                if let Some(place) = self.variables.get_mut(number as usize) {
                    *place = before;
                }
            }
        }
        agree
    }

    fn agree(&mut self, one: &Type, other: &Type) -> bool {
        if !self.step() {
            return true;
        }
        if let Type::Var(number) = other {
            match self.take_for(one, *number) {
                Taken::Yes => return true,
                Taken::No => return false,
                Taken::Unknown => {}
            }
        }
        if let Type::Var(number) = one {
            return matches!(self.take_for(other, *number), Taken::Yes);
        }
        if one.is_dyn() || other.is_dyn() {
            return true;
        }
        match (one, other) {
            (Type::Null, _) => nullable(other),
            (_, Type::Null) => nullable(one),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.agree(a, b),
            (Type::Map(a, b), Type::Map(c, d)) => self.agree(a, c) && self.agree(b, d),
            (Type::Type(_), Type::Type(_)) => true,
            _ => one == other,
        }
    }

    /// Tries to let a variable stand for a type.
    fn take_for(&mut self, ty: &Type, number: u32) -> Taken {
        if *ty == Type::Var(number) {
            return Taken::Yes;
        }
        match self.variables.get(number as usize).cloned().flatten() {
            Some(known) => {
                if *ty == known {
                    return Taken::Yes;
                }
                if !self.agree(ty, &known) {
                    return Taken::No;
                }
                let general = most_general(ty.clone(), known);
                if !self.mentions(&general, number) {
                    self.set(number, general);
                }
                Taken::Yes
            }
            None if self.mentions(ty, number) => Taken::Unknown,
            None => {
                self.set(number, ty.clone());
                Taken::Yes
            }
        }
    }

    fn set(&mut self, number: u32, ty: Type) {
        if let Some(place) = self.variables.get_mut(number as usize) {
            self.trail.push((number, place.replace(ty)));
        }
    }

    /// Counts a step; false when there are none left.
    pub(super) fn step(&self) -> bool {
        self.fuel.set(self.fuel.get().saturating_sub(1));
        self.fuel.get() > 0
    }

    fn mentions(&self, ty: &Type, number: u32) -> bool {
        if !self.step() {
            return true;
        }
        match ty {
            Type::Var(other) if *other == number => true,
            Type::Var(other) => self.variables.get(*other as usize).and_then(Option::as_ref).is_some_and(|known| self.mentions(known, number)),
            Type::List(of) | Type::Optional(of) | Type::Type(Some(of)) => self.mentions(of, number),
            Type::Map(key, value) => self.mentions(key, number) || self.mentions(value, number),
            _ => false,
        }
    }
}

enum Taken {
    Yes,
    No,
    /// The variable is free and cannot stand for the type; the other way round may do.
    Unknown,
}

/// Types whose values may be compared with null.
fn nullable(ty: &Type) -> bool {
    matches!(ty, Type::Null | Type::Duration | Type::Timestamp | Type::Object(_) | Type::Message(_) | Type::Opaque(_) | Type::Optional(_))
}

pub(super) fn most_general(one: Type, other: Type) -> Type {
    if less_specific(&one, &other) { one } else { other }
}

fn less_specific(one: &Type, other: &Type) -> bool {
    match (one, other) {
        (Type::Dyn | Type::Var(_), _) => true,
        (_, Type::Dyn | Type::Var(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (Type::Map(a, b), Type::Map(c, d)) => less_specific(a, c) && less_specific(b, d),
        (Type::Null, other) => !nullable(other),
        _ => one == other,
    }
}
