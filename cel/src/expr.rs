//! Expressions as they are checked and run: the parser's tree with macros expanded, local variables resolved to places, and calls to functions.

use crate::functions::Function;
use std::sync::Arc;

/// A node. `id` indexes what is known about it beside the tree: position, type, overloads.
#[derive(Debug)]
pub(crate) struct Expr {
    pub id: u32,
    pub kind: Kind,
}

impl Expr {
    /// The expressions that this one is made of. The start of a comprehension is none of them, since what is built up from it is no constant.
    pub fn parts(&mut self) -> Vec<&mut Expr> {
        match &mut self.kind {
            Kind::Literal(_) | Kind::Constant(_) | Kind::Local(..) | Kind::Global(_) => Vec::new(),
            Kind::Select { operand, .. } | Kind::OptSelect { operand, .. } => vec![operand],
            Kind::Call(call) => call.args.iter_mut().collect(),
            Kind::List { elements, .. } => elements.iter_mut().collect(),
            Kind::Map(entries) => entries.iter_mut().flat_map(|entry| [&mut entry.key, &mut entry.value]).collect(),
            Kind::Message { fields, .. } => fields.iter_mut().map(|field| &mut field.value).collect(),
            Kind::Comprehension(fold) => vec![&mut fold.range, &mut fold.condition, &mut fold.step, &mut fold.result],
            Kind::OptMap { operand, body, .. } => vec![operand, body],
            Kind::Bind { value, body } => vec![value, body],
        }
    }
}

#[derive(Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    /// A literal in more than one part, such as `[1, 2]` or `duration('1h')`; free of cost.
    Constant(Box<Expr>),
    /// A variable of a comprehension: its place in the stack of locals, and its name.
    Local(u32, Box<str>),
    Global(Box<str>),
    /// `operand.field`; `test` is `has(operand.field)`.
    Select {
        operand: Box<Expr>,
        field: Box<str>,
        test: bool,
    },
    /// `operand.?field`
    OptSelect {
        operand: Box<Expr>,
        field: Box<str>,
    },
    Call(Call),
    List {
        elements: Vec<Expr>,
        /// Which elements are left out when they are `optional.none()`.
        optional: Vec<bool>,
    },
    Map(Vec<Entry>),
    Message {
        name: Box<str>,
        fields: Vec<MessageField>,
    },
    Comprehension(Box<Comprehension>),
    /// `operand.optMap(variable, body)`, or `optFlatMap`.
    OptMap {
        operand: Box<Expr>,
        body: Box<Expr>,
        flat: bool,
    },
    /// `variable = value; body`
    Bind {
        value: Box<Expr>,
        body: Box<Expr>,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Box<str>),
    Bytes(Box<[u8]>),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub name: Box<str>,
    /// Whether the first argument stood before the dot.
    pub member: bool,
    pub args: Vec<Expr>,
    /// Set by the checker; operators that are evaluated in place have none.
    pub function: Option<&'static Function>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Debug)]
pub(crate) struct MessageField {
    pub id: u32,
    pub name: Box<str>,
    pub value: Expr,
    pub optional: bool,
}

/// A fold over a list or map, which all macros about collections become.
#[derive(Debug)]
pub(crate) struct Comprehension {
    pub range: Expr,
    /// Element of a list or key of a map; of two variables, index or key.
    pub second: bool,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

/// Where nodes are in the source.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    pub source: Arc<str>,
    /// Offset in characters by node id.
    pub offsets: Vec<u32>,
}

impl Positions {
    /// `ERROR: <input>:1:5: message` with the line and a pointer below it.
    pub fn message(&self, id: u32, message: &str) -> String {
        let offset = self.offsets.get(id as usize).copied().unwrap_or_default() as usize;
        let (mut line, mut column, mut text) = (1, offset, self.source.lines().next().unwrap_or_default());
        let mut start = 0;
        for (number, candidate) in self.source.split_inclusive('\n').enumerate() {
            if offset >= start {
                (line, column, text) = (number + 1, offset - start, candidate.trim_end_matches(['\n', '\r']));
            }
            start += candidate.chars().count();
        }
        display(line, column, text, message)
    }
}

/// The position in upstream's form; `column` from 0.
pub(crate) fn display(line: usize, column: usize, text: &str, message: &str) -> String {
    let shown = text.replace('\t', " ");
    let dots: String = shown.chars().take(column).map(|c| if c.len_utf8() > 1 { '\u{ff0e}' } else { '.' }).collect();
    let mark = if shown.chars().nth(column).is_some_and(|c| c.len_utf8() > 1) { '\u{ff3e}' } else { '^' };
    let at = column + 1;
    if shown.len() > 16384 {
        return format!("ERROR: <input>:{line}:{at}: {message}");
    }
    format!("ERROR: <input>:{line}:{at}: {message}\n | {shown}\n | {dots}{mark}")
}
