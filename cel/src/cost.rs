//! Static cost: the most that a run may cost, from what schemas say about sizes. The figures are part of the API, since they decide which rules a custom
//! resource definition may have; so the estimate follows CEL's reference estimator and Kubernetes' additions step by step.

use crate::check::Checked;
use crate::expr::{Call, Comprehension, Expr, Kind, Literal};
use crate::functions::Overload;
use crate::meter::{AUTHORIZATION, PATTERN, TRAVERSAL};
use crate::types::{Decl, Shape, Type};
use std::sync::Arc;

/// Least and most of a size or a cost; both saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub min: u64,
    pub max: u64,
}

impl Range {
    const UNKNOWN: Range = Range { min: 0, max: u64::MAX };
    const ZERO: Range = Range::fixed(0);

    const fn fixed(value: u64) -> Range {
        Range { min: value, max: value }
    }
    fn plus(self, other: Range) -> Range {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }
    fn times(self, other: Range) -> Range {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }
    fn by(self, factor: f64) -> Range {
        // A cast from a float saturates.
        let scaled = |value: u64| (value as f64 * factor).ceil() as u64;
        Range { min: scaled(self.min), max: scaled(self.max) }
    }
    fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Sizes of the keys and values of a collection.
#[derive(Clone, Copy)]
struct Entries {
    list: bool,
    key: Range,
    value: Range,
}

/// Where in the data an expression points.
#[derive(Clone)]
enum Place {
    /// Nowhere: it was made.
    None,
    At(Arc<Decl>),
    /// At something that the schema does not know.
    Lost,
}

struct Local {
    place: Place,
    size: Option<Range>,
    entries: Option<Entries>,
}

/// The least and most that a run costs; `root` declares the data of all variables.
pub(crate) fn estimate(expr: &Expr, checked: &Checked, root: &Arc<Decl>) -> Range {
    let count = checked.types.len();
    let mut coster = Coster {
        checked,
        root: Place::At(root.clone()),
        places: vec![Place::None; count],
        sizes: vec![None; count],
        entries: vec![None; count],
        locals: Vec::new(),
    };
    coster.cost(expr)
}

struct Coster<'c> {
    checked: &'c Checked,
    root: Place,
    places: Vec<Place>,
    sizes: Vec<Option<Range>>,
    entries: Vec<Option<Entries>>,
    locals: Vec<Local>,
}

impl Coster<'_> {
    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) | Kind::Constant(_) => Range::ZERO,
            Kind::Local(at, _) => {
                let place = self.locals.get(*at as usize).map_or(Place::None, |local| local.place.clone());
                self.set_place(expr, place);
                Range::fixed(1)
            }
            Kind::Global(_) => {
                self.set_place(expr, self.root.clone());
                Range::fixed(1)
            }
            // Asking whether a field is there is free.
            Kind::Select { operand, test: true, .. } => self.cost(operand),
            Kind::Select { operand, field, test: false } => {
                let cost = self.cost(operand);
                let place = self.step(operand, |decl| decl.field(field).map(|field| field.decl.clone()));
                self.set_place(expr, place);
                match self.checked.ty(operand) {
                    Type::Map(..) | Type::Object(_) | Type::Message(_) => cost.plus(Range::fixed(1)),
                    _ => cost,
                }
            }
            Kind::OptSelect { operand, .. } => self.cost(operand).plus(Range::fixed(1)),
            Kind::Call(call) => self.call(expr, call),
            Kind::List { elements, .. } => {
                let (mut cost, mut size) = (Range::fixed(10), None);
                for element in elements {
                    cost = cost.plus(self.cost(element));
                    let of = self.size_or_unknown(element);
                    size = Some(size.map_or(of, |size: Range| size.union(of)));
                }
                self.set_entries(expr, Some(Entries { list: true, key: Range::fixed(1), value: size.unwrap_or(Range::ZERO) }));
                cost
            }
            Kind::Map(entries) => {
                let (mut cost, mut keys, mut values) = (Range::fixed(30), None, None);
                for entry in entries {
                    cost = cost.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    let (key, value) = (self.size_or_unknown(&entry.key), self.size_or_unknown(&entry.value));
                    keys = Some(keys.map_or(key, |known: Range| known.union(key)));
                    values = Some(values.map_or(value, |known: Range| known.union(value)));
                }
                self.set_entries(expr, Some(Entries { list: false, key: keys.unwrap_or(Range::ZERO), value: values.unwrap_or(Range::ZERO) }));
                cost
            }
            Kind::Message { fields, .. } => fields.iter().fold(Range::fixed(40), |cost, field| cost.plus(self.cost(&field.value))),
            Kind::Comprehension(fold) => self.comprehension(expr, fold),
            // Upstream expands it to a conditional that names the operand twice, with a binding inside.
            Kind::OptMap { operand, body, .. } => {
                let operand_cost = self.cost(operand);
                self.locals.push(Local { place: Place::None, size: None, entries: None });
                let body = self.cost(body);
                self.locals.pop();
                let taken = operand_cost.plus(body).plus(Range::fixed(12));
                operand_cost.plus(Range::fixed(1)).plus(Range { min: taken.min.min(1), max: taken.max })
            }
            Kind::Bind { value, body } => {
                let cost = Range::fixed(10).plus(self.cost(value));
                let local = Local { place: self.place(value), size: self.size(value), entries: self.entries_of(value) };
                self.locals.push(local);
                let cost = cost.plus(self.cost(body));
                let (size, entries) = (self.size(body), self.entries_of(body));
                self.locals.pop();
                self.set_size(expr, size);
                self.set_entries(expr, entries);
                cost
            }
        }
    }

    fn comprehension(&mut self, expr: &Expr, fold: &Comprehension) -> Range {
        let cost = self.cost(&fold.range).plus(self.cost(&fold.init));
        let accumulator = Local { place: self.place(&fold.init), size: self.size(&fold.init), entries: self.entries_of(&fold.init) };
        self.locals.push(accumulator);
        let entries = self.entries_of(&fold.range);
        let list = entries.map_or(matches!(self.checked.ty(&fold.range), Type::List(_)), |entries| entries.list);
        let element = self.step_from(&self.place(&fold.range), element);
        // Keys and places in lists are texts and numbers, of which schemas say nothing.
        let key = Local { place: self.step_from(&self.place(&fold.range), decl_key), size: entries.map(|entries| entries.key), entries: None };
        let value = Local { place: element, size: entries.map(|entries| entries.value), entries: None };
        let before = self.locals.len();
        if fold.second {
            self.locals.extend([key, value]);
        } else {
            self.locals.push(if list { value } else { key });
        }
        let round = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(before);
        let cost = cost.plus(self.cost(&fold.result));
        self.locals.pop();
        let rounds = self.size_or_unknown(&fold.range);
        match &fold.init.kind {
            Kind::Literal(_) => {
                let size = self.size(&fold.init);
                self.set_size(expr, size);
            }
            Kind::List { .. } | Kind::Map(_) => {
                self.set_size(expr, Some(rounds));
                let entries = self.entries_of(&fold.step);
                self.set_entries(expr, entries);
            }
            _ => {}
        }
        cost.plus(rounds.times(round))
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Range {
        let costs: Vec<Range> = call.args.iter().map(|arg| self.cost(arg)).collect();
        if &*call.name == "dyn" {
            if let Some(arg) = call.args.first() {
                let (place, size, entries) = (self.place(arg), self.size(arg), self.entries_of(arg));
                self.set_place(expr, place);
                self.set_size(expr, size);
                self.set_entries(expr, entries);
            }
            return costs.first().copied().unwrap_or(Range::ZERO).plus(Range::fixed(1));
        }
        let overloads = self.checked.overloads(expr).to_vec();
        if overloads.is_empty() {
            return Range::ZERO;
        }
        let (mut total, mut size): (Option<Range>, Option<Range>) = (None, None);
        for overload in overloads {
            let (cost, result) = self.overload(expr, call, overload, &costs);
            total = Some(total.map_or(cost, |total| total.union(cost)));
            if let Some(result) = result {
                size = Some(size.map_or(result, |size| size.union(result)));
            }
            if overload.id.starts_with("_[_](list") || overload.id.starts_with("_[_](map") {
                let of = call.args.first();
                size = of.and_then(|of| self.entries_of(of)).map(|entries| entries.value);
                if let Some(of) = of {
                    let place = self.step_from(&self.place(of), element);
                    self.set_place(expr, place);
                }
            }
            size = size.or_else(|| self.size(expr));
        }
        self.set_size(expr, size);
        total.unwrap_or(Range::ZERO)
    }

    /// Cost of a call with its arguments, and the size of its result.
    fn overload(&mut self, expr: &Expr, call: &Call, overload: &Overload, costs: &[Range]) -> (Range, Option<Range>) {
        let sum = costs.iter().fold(Range::ZERO, |sum, cost| sum.plus(*cost));
        let cost_of = |at: usize| costs.get(at).copied().unwrap_or(Range::ZERO);
        let sizes: Vec<Range> = call.args.iter().map(|arg| self.size_or_unknown(arg)).collect();
        let size = |at: usize| sizes.get(at).copied().unwrap_or(Range::UNKNOWN);
        let first_is = |of: &str| overload.id.split_once('(').is_some_and(|(_, args)| args.starts_with(of));
        let (cost, result) = match function(call) {
            "check" => (Range::fixed(AUTHORIZATION), None),
            "fieldSelector" | "labelSelector" => (Range::fixed(10).plus(size(1).by(TRAVERSAL)).plus(size(1).by(0.5).by(50.0)), None),
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => match self.elements(call) {
                Some((text, elements)) => {
                    let each = if text { Range::fixed(1).plus(elements.by(TRAVERSAL)) } else { Range::fixed(1) };
                    (size(0).times(each), None)
                }
                None => (size(0).by(TRAVERSAL), None),
            },
            "url" | "jsonpatch.escapeKey" | "lowerAscii" | "upperAscii" | "substring" | "trim" => (size(0).by(TRAVERSAL), Some(size(0))),
            "replace" => (size(0).by(2.0 * TRAVERSAL), Some(replaced(size(0), size(1), size(2)))),
            "split" => {
                let most = match call.args.get(2).map(|arg| &arg.kind) {
                    Some(Kind::Literal(Literal::Int(most))) => *most as u64,
                    _ => size(0).max,
                };
                (size(0).by(2.0 * TRAVERSAL), Some(Range { min: 0, max: most }))
            }
            "join" => {
                let mut total = self.elements(call).map_or(Range::ZERO, |(_, elements)| size(0).times(elements));
                if call.args.len() > 1 {
                    let gaps = Range { min: size(0).min.saturating_sub(1), max: size(0).max.saturating_sub(1) };
                    total = total.plus(size(1).times(gaps));
                }
                (total.by(TRAVERSAL), Some(total))
            }
            "find" | "findAll" => (pattern(size(0), size(1)), Some(Range { min: 0, max: size(0).max })),
            "ip" if overload.id.starts_with('(') => (Range::fixed(1), None),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => (size(0).by(TRAVERSAL), None),
            "ip.isCanonical" => (size(0).by(2.0 * TRAVERSAL), None),
            "containsIP" | "containsCIDR" => {
                let address = Range { min: 4, max: 16 };
                let mut cost = address.plus(address).by(TRAVERSAL);
                if function(call) == "containsCIDR" {
                    cost = cost.plus(address.by(TRAVERSAL)).plus(Range::fixed(1));
                }
                let parsing = if overload.id.contains("(string)") { size(1).by(TRAVERSAL) } else { Range::ZERO };
                (cost.plus(parsing), None)
            }
            "validate" => (size(1).by(TRAVERSAL).by(128.0 * PATTERN), None),
            "slice" => {
                let (from, to) = (integer(call.args.get(1)).unwrap_or(0), integer(call.args.get(2)).unwrap_or(size(0).max));
                allocating(1.0, Range::fixed(to.saturating_sub(from)))
            }
            "lists.range" => allocating(1.0, Range::fixed(integer(call.args.first()).unwrap_or(u64::MAX))),
            "reverse" => allocating(1.0, size(0)),
            "flatten" => allocating(if call.args.len() > 1 { integer(call.args.get(1)).unwrap_or(u64::MAX) as f64 } else { 1.0 }, size(0)),
            "distinct" => allocating(2.0, size(0).times(size(0))),
            "sort" | "@sortByAssociatedKeys" => {
                let keys = if function(call) == "sort" { size(0) } else { size(1) };
                let text = overload.args.last().is_some_and(|ty| *ty == Type::list(Type::String) || *ty == Type::list(Type::Bytes));
                allocating(if text { 2.0 + TRAVERSAL } else { 2.0 }, keys.times(keys))
            }
            "sets.contains" | "sets.intersects" => (size(0).times(size(1)).plus(Range::fixed(1)), None),
            "sets.equivalent" => (size(0).times(size(1)).by(2.0).plus(Range::fixed(1)), None),
            "format" => (size(0).by(TRAVERSAL), None),
            "bytes" if first_is("string") => (size(0).by(TRAVERSAL), Some(Range { min: size(0).min, max: size(0).max.saturating_mul(4) })),
            "string" if first_is("bytes") => (size(0).by(TRAVERSAL), Some(Range { min: size(0).min / 4, max: size(0).max })),
            "strings.quote" => (size(0).by(TRAVERSAL), Some(Range { min: size(0).min + 2, max: size(0).max.saturating_mul(2).saturating_add(2) })),
            "startsWith" | "endsWith" => (size(1).by(TRAVERSAL), None),
            "@in" if overload.id.contains("list") => (size(1), None),
            "matches" => (pattern(size(0), size(1)), None),
            "contains" => (size(0).by(TRAVERSAL).times(size(1).by(TRAVERSAL)), None),
            // The second one may not be looked at.
            "_||_" | "_&&_" => return (Range { min: cost_of(0).min, max: cost_of(0).plus(cost_of(1)).max }, None),
            "_?_:_" => {
                if let [_, yes, no] = call.args.as_slice() {
                    let entries = match (self.entries_of(yes), self.entries_of(no)) {
                        (Some(a), Some(b)) => Some(united(a, b)),
                        _ => None,
                    };
                    self.set_entries(expr, entries);
                }
                return (cost_of(0).plus(cost_of(1).union(cost_of(2))), Some(size(1).union(size(2))));
            }
            "_+_" if first_is("string") || first_is("bytes") || first_is("list") => {
                if let [one, other] = call.args.as_slice()
                    && let (Some(a), Some(b)) = (self.entries_of(one), self.entries_of(other))
                {
                    self.set_entries(expr, Some(united(a, b)));
                }
                let total = size(0).plus(size(1));
                (if first_is("list") { Range::fixed(1) } else { total.by(TRAVERSAL) }, Some(total))
            }
            "_==_" if self.opaque_pair(call) => (Range::fixed(1), None),
            "_==_" | "_!=_" => (compared(size(0), size(1)), None),
            "_<_" | "_>_" | "_<=_" | "_>=_" if first_is("string") || first_is("bytes") => (compared(size(0), size(1)), None),
            _ => (Range::fixed(1), None),
        };
        (cost.plus(sum), result)
    }

    /// Whether elements of the first argument, a list, are texts, and their size.
    fn elements(&self, call: &Call) -> Option<(bool, Range)> {
        let list = call.args.first()?;
        let Type::List(of) = self.checked.ty(list) else { return None };
        let size = match self.place(list) {
            Place::At(decl) => element(&decl).map_or(Range::UNKNOWN, |decl| Range { min: 0, max: decl.max_elements }),
            _ => Range::UNKNOWN,
        };
        Some((matches!(**of, Type::String | Type::Bytes), size))
    }

    fn opaque_pair(&self, call: &Call) -> bool {
        matches!(call.args.as_slice(), [one, other] if matches!((self.checked.ty(one), self.checked.ty(other)), (Type::Opaque(a), Type::Opaque(b)) if a == b))
    }

    fn place(&self, expr: &Expr) -> Place {
        self.places.get(expr.id as usize).cloned().unwrap_or(Place::None)
    }

    fn set_place(&mut self, expr: &Expr, place: Place) {
        if let Some(slot) = self.places.get_mut(expr.id as usize) {
            *slot = place;
        }
    }

    fn step(&self, from: &Expr, down: impl Fn(&Decl) -> Option<Arc<Decl>>) -> Place {
        self.step_from(&self.place(from), down)
    }

    fn step_from(&self, from: &Place, down: impl Fn(&Decl) -> Option<Arc<Decl>>) -> Place {
        match from {
            // Upstream leaves out the first step of every path, as it is the variable's name: here there is none, so the first step is lost.
            Place::None => self.root.clone(),
            Place::At(decl) => down(decl).map_or(Place::Lost, Place::At),
            Place::Lost => Place::Lost,
        }
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        let id = expr.id as usize;
        if let Some(known) = self.sizes.get(id).copied().flatten() {
            return Some(known);
        }
        match &expr.kind {
            Kind::Literal(Literal::String(text)) => return Some(Range::fixed(text.chars().count() as u64)),
            Kind::Literal(Literal::Bytes(bytes)) => return Some(Range::fixed(bytes.len() as u64)),
            Kind::Literal(_) => return Some(Range::fixed(1)),
            Kind::List { elements, .. } => return Some(Range::fixed(elements.len() as u64)),
            Kind::Map(entries) => return Some(Range::fixed(entries.len() as u64)),
            _ => {}
        }
        if let Place::At(decl) = self.place(expr) {
            let size = Range { min: 0, max: decl.max_elements };
            self.set_size(expr, Some(size));
            return Some(size);
        }
        if self.checked.ty(expr).is_scalar() {
            return Some(Range::fixed(1));
        }
        match &expr.kind {
            Kind::Local(at, _) => self.locals.get(*at as usize).and_then(|local| local.size),
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn set_size(&mut self, expr: &Expr, size: Option<Range>) {
        if let (Some(slot), Some(size)) = (self.sizes.get_mut(expr.id as usize), size) {
            *slot = Some(size);
        }
    }

    fn entries_of(&self, expr: &Expr) -> Option<Entries> {
        self.entries.get(expr.id as usize).copied().flatten().or_else(|| match &expr.kind {
            Kind::Local(at, _) => self.locals.get(*at as usize).and_then(|local| local.entries),
            _ => None,
        })
    }

    fn set_entries(&mut self, expr: &Expr, entries: Option<Entries>) {
        if let (Some(slot), Some(entries)) = (self.entries.get_mut(expr.id as usize), entries) {
            *slot = Some(entries);
        }
    }
}

fn function(call: &Call) -> &str {
    call.function.map_or(&call.name, |function| function.name)
}

/// What a list or map is of.
fn element(decl: &Decl) -> Option<Arc<Decl>> {
    match &decl.shape {
        Shape::List(of, _) | Shape::Map(of) => Some(of.clone()),
        _ => None,
    }
}

/// Keys of a map: text, as long as a request.
fn decl_key(decl: &Decl) -> Option<Arc<Decl>> {
    match &decl.shape {
        Shape::Map(_) => Some(Decl::new(Shape::String).bounded(0)),
        _ => None,
    }
}

fn united(one: Entries, other: Entries) -> Entries {
    Entries { list: one.list, key: one.key.union(other.key), value: one.value.union(other.value) }
}

fn integer(expr: Option<&Expr>) -> Option<u64> {
    match expr.map(|expr| &expr.kind) {
        Some(Kind::Literal(Literal::Int(value))) => Some(u64::try_from(*value).unwrap_or(0)),
        _ => None,
    }
}

fn allocating(factor: f64, size: Range) -> (Range, Option<Range>) {
    (size.by(factor).plus(Range::fixed(11)), Some(size))
}

fn pattern(text: Range, regex: Range) -> Range {
    text.plus(Range::fixed(1)).by(TRAVERSAL).times(regex.by(PATTERN))
}

fn compared(one: Range, other: Range) -> Range {
    let max = one.max.min(other.max);
    Range { min: u64::from(max > 0), max }.by(TRAVERSAL)
}

/// Size of a text in which `old` is replaced by `new`.
fn replaced(text: Range, old: Range, new: Range) -> Range {
    let (mut count, mut kept) = (Range::ZERO, Range::ZERO);
    if old.min == 0 {
        (count.max, kept.max) = (text.max.saturating_add(1), text.max);
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        count.max = text.max.div_ceil(old.min);
    }
    if old.max == 0 {
        (count.min, kept.min) = (text.min.saturating_add(1), text.min);
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        count.min = text.min.div_ceil(old.max);
    }
    count.times(new).plus(kept)
}
