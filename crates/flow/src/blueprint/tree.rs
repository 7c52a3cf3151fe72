//! YAML as a tree of which each node knows where it stands. Read event by event, so that a file that grows by its
//! anchors is refused as soon as it has grown too far.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::{
    finding::{Finding, code},
    tags,
};
use crate::value::{Number, Value};

/// The largest file, in bytes.
pub(super) const FILE_BYTES: usize = 1 << 20;
/// The most nodes, those that anchors repeat counted each time.
pub(super) const NODES: usize = 50_000;
/// How deep nodes may lie within each other.
pub(super) const DEPTH: usize = 64;

/// Where something stands, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl From<&Marker> for Mark {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line().max(1), column: marker.col() + 1 }
    }
}

/// A node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) what: What,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// A text.
    Scalar(Arc<str>, Style),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes, so that it may be a number.
    Plain,
    Quoted,
    /// In lines of its own, after `|` or `>`.
    Block,
}

impl Node {
    /// As a value, by the rules of YAML 1.1 for plain words, which Flujo has.
    pub(super) fn value(&self) -> Value {
        match &self.what {
            What::Scalar(text, Style::Plain) => plain(text),
            What::Scalar(text, _) => Value::Text(Arc::clone(text)),
            What::List(nodes) => Value::list(nodes.iter().map(Self::value)),
            What::Map(entries) => Value::Map(entries.iter().map(|(name, node)| (name.name(), node.value())).collect()),
        }
    }

    /// As a name: its text as it stands there.
    pub(super) fn name(&self) -> Arc<str> {
        match &self.what {
            What::Scalar(text, _) => Arc::clone(text),
            _ => self.value().to_json().into(),
        }
    }

    /// What sort of node it is, in JSON's words.
    pub(super) fn sort(&self) -> &'static str {
        self.value().sort()
    }

    /// The text, if it is one or a plain word.
    pub(super) fn text(&self) -> Option<&Arc<str>> {
        match &self.what {
            What::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// What stands under `name`, if this is an object that has it.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let What::Map(entries) = &self.what else { return None };
        entries.iter().find(|(key, _)| key.text().is_some_and(|text| **text == *name)).map(|(_, node)| node)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.what, What::Scalar(..)) && self.value() == Value::Null
    }
}

/// What a plain word is.
pub(super) fn plain(text: &Arc<str>) -> Value {
    match &**text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true.into(),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => false.into(),
        word => number(word).unwrap_or_else(|| Value::Text(Arc::clone(text))),
    }
}

fn number(word: &str) -> Option<Value> {
    let digits = word.trim_start_matches(['+', '-']);
    if !digits.starts_with(|letter: char| letter.is_ascii_digit() || letter == '.') {
        return None;
    }
    if let Some(number) = Number::from_digits(word) {
        return Some(Value::Number(number));
    }
    let whole = word.strip_prefix('+').unwrap_or(word);
    if let Some(hexadecimal) = whole.strip_prefix("0x") {
        return i64::from_str_radix(hexadecimal, 16).ok().map(Value::from);
    }
    let all = |letter: char| letter.is_ascii_digit() || matches!(letter, '.' | 'e' | 'E' | '+' | '-');
    whole.parse::<f64>().ok().filter(|number| number.is_finite() && whole.chars().all(all)).map(Value::from)
}

/// What is being put together.
struct Open {
    node: Node,
    anchor: usize,
    /// The name that waits for its value.
    name: Option<Node>,
    /// The names that there are already.
    names: HashSet<Arc<str>>,
    nodes: usize,
}

struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

/// Reads a file. A byte order mark may stand at its begin (YAML 1.2, 5.2).
pub(super) fn read(text: &str) -> Result<Node, Finding> {
    let text = caudal_types::without_mark(text);
    let start = Mark { line: 1, column: 1 };
    if text.len() > FILE_BYTES {
        let message = format!("the file has {} bytes, and {FILE_BYTES} are the most", text.len());
        return Err(Finding::error(start, code::LARGE, message, "part it by imports"));
    }
    let mut builder = Builder { open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let message = format!("this is no YAML: {}", error.info());
            Finding::error(error.marker().into(), code::YAML, message, "mend the file's form")
        })?;
        builder.take(event, Mark::from(&span.start))?;
    }
    builder.root.ok_or_else(|| Finding::error(start, code::YAML, "the file is empty", "write a pipeline into it"))
}

impl Builder {
    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Finding> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                    _ => Style::Quoted,
                };
                let (text, style) = match tag {
                    Some(tag) => tags::scalar(&text, style, &tag, mark)?,
                    None => (Arc::from(&*text), style),
                };
                let node = Node { mark, what: What::Scalar(text, style) };
                if anchor > 0 {
                    self.anchors.insert(anchor, (node.clone(), 1));
                }
                self.put(node, 1)
            }
            Event::Alias(anchor) => {
                let Some((node, nodes)) = self.anchors.get(&anchor).cloned() else {
                    let message = "an anchor stands within itself";
                    return Err(Finding::error(mark, code::LARGE, message, "write it out, or use a loop"));
                };
                self.deep(depth(&node), mark)?;
                self.put(Node { mark, ..node }, nodes)
            }
            Event::SequenceStart(anchor, tag) => {
                tags::collection(tag.as_deref(), "seq", mark)?;
                self.begin(What::List(Vec::new()), anchor, mark)
            }
            Event::MappingStart(anchor, tag) => {
                tags::collection(tag.as_deref(), "map", mark)?;
                self.begin(What::Map(Vec::new()), anchor, mark)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::DocumentStart(_) if self.root.is_some() => {
                let hint = "keep one, and the others in files of their own";
                Err(Finding::error(mark, code::YAML, "the file holds several documents", hint))
            }
            _ => Ok(()),
        }
    }

    fn deep(&self, more: usize, mark: Mark) -> Result<(), Finding> {
        if self.open.len() + more > DEPTH {
            let message = format!("it is more than {DEPTH} deep");
            return Err(Finding::error(mark, code::LARGE, message, "make it flatter, by imports for example"));
        }
        Ok(())
    }

    fn begin(&mut self, what: What, anchor: usize, mark: Mark) -> Result<(), Finding> {
        self.deep(1, mark)?;
        self.open.push(Open { node: Node { mark, what }, anchor, name: None, names: HashSet::new(), nodes: 1 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Finding> {
        let Some(Open { mut node, anchor, nodes, .. }) = self.open.pop() else { return Ok(()) };
        if let What::Map(entries) = &mut node.what {
            merged(entries);
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        self.put(node, nodes)
    }

    fn put(&mut self, node: Node, nodes: usize) -> Result<(), Finding> {
        let mark = node.mark;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.nodes += nodes;
        // What is open has been counted by nobody yet; what is whole is counted in what it stands within.
        self.nodes = self.open.iter().map(|open| open.nodes).sum();
        if self.nodes > NODES {
            let message = format!("it has more than {NODES} values, anchors counted each time");
            return Err(Finding::error(mark, code::LARGE, message, "use fewer anchors, or part the file"));
        }
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        match (&mut open.node.what, open.name.take()) {
            (What::List(nodes), _) => nodes.push(node),
            (What::Map(_), None) => open.name = Some(node),
            (What::Map(entries), Some(name)) => {
                let text = name.name();
                if !open.names.insert(Arc::clone(&text)) {
                    let message = format!("{} stands twice", caudal_types::shorten(&text));
                    return Err(Finding::error(name.mark, code::YAML, message, "keep one of both"));
                }
                entries.push((name, node));
            }
            (What::Scalar(..), _) => {}
        }
        Ok(())
    }
}

fn depth(node: &Node) -> usize {
    match &node.what {
        What::Scalar(..) => 0,
        What::List(nodes) => 1 + nodes.iter().map(depth).max().unwrap_or(0),
        What::Map(entries) => 1 + entries.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
    }
}

/// Puts what `<<` names in its place; what stands there itself wins.
fn merged(entries: &mut Vec<(Node, Node)>) {
    while let Some(place) =
        entries.iter().position(|(name, _)| matches!(&name.what, What::Scalar(text, Style::Plain) if &**text == "<<"))
    {
        let (_, from) = entries.remove(place);
        let maps = match from.what {
            What::List(nodes) => nodes,
            _ => vec![from],
        };
        for map in maps {
            let What::Map(more) = map.what else { continue };
            for (name, node) in more {
                if !entries.iter().any(|(other, _)| other.name() == name.name()) {
                    entries.push((name, node));
                }
            }
        }
    }
}
