//! Numbers of pods that may be given as a percentage (`intstr.IntOrString`).

use super::Text;
use serde::Deserialize;

/// `intstr.IntOrString` as a number or a percentage.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum IntOrPercent<'a> {
    /// A number of pods.
    Int(i64),
    /// Such as `25%`.
    #[serde(borrow)]
    Percent(Text<'a>),
}

impl IntOrPercent<'_> {
    /// The number of pods out of `total`; what cannot be read counts as none (validation refused it before).
    pub fn of(&self, total: i64, round_up: bool) -> i64 {
        match self {
            Self::Int(number) => *number,
            Self::Percent(text) => {
                let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
                let product = percent.saturating_mul(total);
                if round_up { product.saturating_add(99).div_euclid(100) } else { product.div_euclid(100) }
            }
        }
    }
}
