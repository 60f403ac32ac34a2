//! Rules about nodes: `node.class == web`, `attr.zone != c`, `attr.disk in ssd,nvme`, `attr.rack`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::node::Node;

/// What of a node is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// `node.name`
    Name,
    /// `node.class`
    Class,
    /// `attr.KEY`
    Attribute(String),
}

/// How it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`; holds too where the node has no such attribute.
    NotEqual,
    /// `<`, by number where both are numbers, else by version parts.
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `in a,b,c`
    In,
    /// `not in a,b,c`; holds too where the node has no such attribute.
    NotIn,
    /// The attribute is there, whatever its value.
    Exists,
}

/// One rule about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    /// Left side.
    pub subject: Subject,
    /// Comparison.
    pub operator: Operator,
    /// Right side; empty for [`Operator::Exists`].
    pub value: String,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// The left side names nothing that a node has.
    #[error("{0:?} is nothing a node has; use node.name, node.class or attr.KEY")]
    Subject(String),
    /// No operator, or an unknown one.
    #[error(
        "{0:?} is no rule; write one as in \"node.class == web\", with ==, !=, <, <=, >, >=, in, not in"
    )]
    Operator(String),
    /// Nothing on the right side.
    #[error("the rule {0:?} has no value on its right side")]
    Value(String),
}

impl FromStr for Subject {
    type Err = ConstraintError;
    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let known = match text {
            "node.name" => Some(Self::Name),
            "node.class" => Some(Self::Class),
            _ => text
                .strip_prefix("attr.")
                .filter(|key| !key.is_empty() && !key.contains(char::is_whitespace))
                .map(|key| Self::Attribute(key.to_owned())),
        };
        known.ok_or_else(|| ConstraintError::Subject(text.to_owned()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.pad("node.name"),
            Self::Class => f.pad("node.class"),
            Self::Attribute(key) => write!(f, "attr.{key}"),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = ConstraintError;
    fn try_from(text: String) -> Result<Self, ConstraintError> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.to_string()
    }
}

impl Subject {
    /// The node's value, if it has one.
    pub fn of<'n>(&self, node: &'n Node) -> Option<&'n str> {
        match self {
            Self::Name => Some(node.name.as_str()),
            Self::Class => Some(node.class.as_str()).filter(|class| !class.is_empty()),
            Self::Attribute(key) => node.attributes.get(key).map(String::as_str),
        }
    }
}

const OPERATORS: [(&str, Operator); 6] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

impl FromStr for Constraint {
    type Err = ConstraintError;
    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let text = text.trim();
        let end = text
            .find(|c: char| c.is_whitespace() || matches!(c, '=' | '!' | '<' | '>'))
            .unwrap_or(text.len());
        let (subject, rest) = text.split_at(end);
        let subject: Subject = subject.parse()?;
        let rest = rest.trim();
        if rest.is_empty() {
            return Ok(Self { subject, operator: Operator::Exists, value: String::new() });
        }
        let word = |word: &str| {
            rest.strip_prefix(word).filter(|tail| tail.starts_with(char::is_whitespace))
        };
        let (operator, value) = if let Some(tail) = word("in") {
            (Operator::In, tail)
        } else if let Some(tail) = word("not in") {
            (Operator::NotIn, tail)
        } else {
            OPERATORS
                .iter()
                .find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)))
                .ok_or_else(|| ConstraintError::Operator(text.to_owned()))?
        };
        let value = value.trim().to_owned();
        if value.is_empty() {
            return Err(ConstraintError::Value(text.to_owned()));
        }
        Ok(Self { subject, operator, value })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.operator {
            Operator::Exists => return write!(f, "{}", self.subject),
            Operator::In => "in",
            Operator::NotIn => "not in",
            other => OPERATORS.iter().find(|(_, o)| *o == other).map_or("==", |(sign, _)| sign),
        };
        write!(f, "{} {sign} {}", self.subject, self.value)
    }
}

impl TryFrom<String> for Constraint {
    type Error = ConstraintError;
    fn try_from(text: String) -> Result<Self, ConstraintError> {
        text.parse()
    }
}

impl From<Constraint> for String {
    fn from(constraint: Constraint) -> String {
        constraint.to_string()
    }
}

impl Constraint {
    /// Whether `node` keeps the rule.
    pub fn holds(&self, node: &Node) -> bool {
        let value = self.subject.of(node);
        let listed = |value: &str| self.value.split(',').any(|item| item.trim() == value);
        match (self.operator, value) {
            (Operator::NotEqual | Operator::NotIn, None) => true,
            (_, None) => false,
            (Operator::Exists, Some(_)) => true,
            (Operator::Equal, Some(value)) => value == self.value,
            (Operator::NotEqual, Some(value)) => value != self.value,
            (Operator::In, Some(value)) => listed(value),
            (Operator::NotIn, Some(value)) => !listed(value),
            (Operator::Less, Some(value)) => compare(value, &self.value).is_lt(),
            (Operator::LessOrEqual, Some(value)) => compare(value, &self.value).is_le(),
            (Operator::Greater, Some(value)) => compare(value, &self.value).is_gt(),
            (Operator::GreaterOrEqual, Some(value)) => compare(value, &self.value).is_ge(),
        }
    }
}

/// By number if both are numbers; else part by part as versions are: `5.9` before `5.10`.
fn compare(left: &str, right: &str) -> std::cmp::Ordering {
    if let (Ok(left), Ok(right)) = (left.parse::<f64>(), right.parse::<f64>())
        && let Some(ordering) = left.partial_cmp(&right)
        && !(left.to_string().contains('.') || right.to_string().contains('.'))
    {
        return ordering;
    }
    let parts = |text: &str| -> Vec<Result<u64, String>> {
        text.split(['.', '-', '+'])
            .map(|part| part.parse::<u64>().map_err(|_| part.to_owned()))
            .collect()
    };
    parts(left).cmp(&parts(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let mut node = Node::example("n1");
        node.class = "web".into();
        node.attributes = [("zone", "a"), ("kernel", "5.10.2"), ("disk", "ssd"), ("rack", "12")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        node
    }

    #[test]
    fn rules_hold_or_not() {
        for (text, holds) in [
            ("node.class == web", true),
            ("node.name==n1", true),
            ("node.name != n1", false),
            ("attr.zone in a, b", true),
            ("attr.zone not in a,b", false),
            ("attr.none != x", true),
            ("attr.none not in x", true),
            ("attr.none == x", false),
            ("attr.disk", true),
            ("attr.none", false),
            ("attr.kernel >= 5.9", true),
            ("attr.kernel < 5.10", false),
            ("attr.rack > 9", true),
        ] {
            let rule: Constraint = text.parse().expect(text);
            assert_eq!(rule.holds(&node()), holds, "{text}");
            assert_eq!(rule.to_string().parse(), Ok(rule), "{text}");
        }
    }

    #[test]
    fn a_wrong_rule_says_what_is_wrong() {
        assert!(matches!("zone == a".parse::<Constraint>(), Err(ConstraintError::Subject(_))));
        assert!(matches!("attr.zone = a".parse::<Constraint>(), Err(ConstraintError::Operator(_))));
        assert!(matches!("attr.zone ==".parse::<Constraint>(), Err(ConstraintError::Value(_))));
        assert!(matches!("".parse::<Constraint>(), Err(ConstraintError::Subject(_))));
    }
}
