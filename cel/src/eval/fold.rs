//! Comprehensions: what macros over lists and maps become.

use super::{Answer, Error, Run, no_overload};
use crate::{
    expr::{Comprehension, Kind},
    value::Val,
};

impl<'a> Run<'_, 'a> {
    pub(super) fn comprehension(&mut self, fold: &'a Comprehension) -> Answer<'a> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init)?;
        let place = self.locals.len();
        self.locals.push(Ok(init));
        let folded = self.fold(fold, &range, place);
        let result = folded.and_then(|()| {
            self.locals.truncate(place + 1);
            self.eval(&fold.result)
        });
        self.locals.truncate(place);
        result
    }

    fn fold(&mut self, fold: &'a Comprehension, range: &Val<'a>, place: usize) -> Result<(), Error> {
        match range {
            Val::List(list) => {
                for at in 0..list.len() {
                    let Some(element) = list.get(at) else { break };
                    let second = fold.second.then(|| element.clone());
                    let first = if fold.second { Ok(Val::Int(at as i64)) } else { element };
                    if !self.iterate(fold, place, first, second)? {
                        break;
                    }
                }
                Ok(())
            }
            Val::Map(map) => {
                self.elements(map.len())?;
                for key in map.keys() {
                    let second = fold.second.then(|| key.key().and_then(|key| map.get(&key)).unwrap_or(Ok(Val::Null)));
                    if !self.iterate(fold, place, Ok(key), second)? {
                        break;
                    }
                }
                Ok(())
            }
            _ => no_overload(),
        }
    }

    /// One round; false when there is nothing to be gained by another.
    fn iterate(&mut self, fold: &'a Comprehension, place: usize, first: Answer<'a>, second: Option<Answer<'a>>) -> Result<bool, Error> {
        self.work(1)?;
        self.locals.truncate(place + 1);
        self.locals.push(first);
        self.locals.extend(second);
        if matches!(self.eval(&fold.condition)?, Val::Bool(false)) {
            return Ok(false);
        }
        let next = match self.eval(&fold.step) {
            Err(Error::Budget) => return Err(Error::Budget),
            // Where the condition looks at the result, a later element may still decide it.
            Err(why) if matches!(fold.condition.kind, Kind::Literal(_)) => return Err(why),
            next => next,
        };
        if let Some(accumulator) = self.locals.get_mut(place) {
            *accumulator = next;
        }
        Ok(true)
    }
}
