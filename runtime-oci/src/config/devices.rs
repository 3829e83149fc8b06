//! Which devices a container may open or make: the same rules for both versions of control groups, of which one takes them as lines and the other out of the configuration.

use serde_json::{Value, json};

/// One of them; a later one counts for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Or not.
    pub allow: bool,
    /// `a`ll, `b`lock or `c`haracter.
    kind: char,
    /// Major and minor number; none: any.
    number: (Option<u64>, Option<u64>),
    /// `r`ead, `w`rite, `m`ake.
    access: &'static str,
}

/// All, or nothing but what every program expects (and devices may be made, not used).
pub fn rules(privileged: bool) -> Vec<Rule> {
    let every = |allow| Rule { allow, kind: 'a', number: (None, None), access: "rwm" };
    if privileged {
        return vec![every(true)];
    }
    let made = |kind| Rule { allow: true, kind, number: (None, None), access: "m" };
    let used = |number| Rule { allow: true, kind: 'c', number, access: "rwm" };
    // null, zero, full, random, urandom, tty, console, ptmx, pts.
    let known = [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(1)), (5, Some(2)), (136, None)];
    [every(false), made('c'), made('b')].into_iter().chain(known.map(|(major, minor)| used((Some(major), minor)))).collect()
}

impl Rule {
    /// As the OCI runtime specification has it (`linux.resources.devices`).
    pub fn json(&self) -> Value {
        let mut rule = json!({ "allow": self.allow, "access": self.access });
        if self.kind != 'a' {
            rule["type"] = json!(self.kind);
        }
        for (name, number) in [("major", self.number.0), ("minor", self.number.1)] {
            if let Some(number) = number {
                rule[name] = json!(number);
            }
        }
        rule
    }

    /// As the kernel takes it (`devices.allow`, `devices.deny`).
    pub fn line(&self) -> String {
        let number = |number: Option<u64>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        format!("{} {}:{} {}", self.kind, number(self.number.0), number(self.number.1), self.access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_the_same_in_both_versions() {
        let forms = |privileged| rules(privileged).iter().map(|rule| (rule.line(), rule.json().to_string())).collect::<Vec<_>>();
        assert_eq!(forms(true), [("a *:* rwm".to_owned(), r#"{"access":"rwm","allow":true}"#.to_owned())]);
        let list = forms(false);
        assert_eq!(list.first().unwrap(), &("a *:* rwm".to_owned(), r#"{"access":"rwm","allow":false}"#.to_owned()));
        assert!(list.contains(&("c *:* m".to_owned(), r#"{"access":"m","allow":true,"type":"c"}"#.to_owned())));
        assert!(list.contains(&("c 1:3 rwm".to_owned(), r#"{"access":"rwm","allow":true,"major":1,"minor":3,"type":"c"}"#.to_owned())));
        assert_eq!(list.last().unwrap(), &("c 136:* rwm".to_owned(), r#"{"access":"rwm","allow":true,"major":136,"type":"c"}"#.to_owned()));
    }
}
