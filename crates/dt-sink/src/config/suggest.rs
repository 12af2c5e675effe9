//! "Did you mean …": finds the choice that is closest to a mistyped word.

/// Returns the choice that is closest to `found`, if it is close enough for a typing error: one character wrong, missing, extra
/// or swapped, and one more for every further three characters. `None` if no choice is that close.
pub fn closest<'a>(found: &str, choices: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// The largest length in bytes of a text that is compared; longer ones, such as a secret in the wrong place, have no
    /// suggestion.
    const MAX: usize = 64;
    if found.len() > MAX {
        return None;
    }
    let found = found.to_ascii_lowercase();
    let distance = |choice: &str| strsim::damerau_levenshtein(&found, &choice.to_ascii_lowercase());
    let allowed = (found.chars().count() / 3).max(1);
    let (distance, choice) =
        choices.into_iter().map(|choice| (distance(choice), choice)).min_by_key(|(distance, _)| *distance)?;
    (distance <= allowed).then_some(choice)
}

/// Returns `did you mean "CHOICE"? ` for the closest choice, or an empty text if no choice is close.
pub fn did_you_mean<'a>(found: &str, choices: impl IntoIterator<Item = &'a str>) -> String {
    closest(found, choices).map_or_else(String::new, |choice| format!("did you mean \"{choice}\"? "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let keys = ["listen", "admin", "trusted_proxies", "mode"];
        assert_eq!(closest("lisen", keys), Some("listen"));
        assert_eq!(closest("Listen", keys), Some("listen"));
        assert_eq!(closest("trusted-proxy", keys), Some("trusted_proxies"));
        assert_eq!(closest("mdoe", keys), Some("mode"));
        assert_eq!(closest("stray", keys), None);
        assert_eq!(closest("hunter2-hunter2", keys), None);
        assert_eq!(closest("", keys), None);
        assert_eq!(closest("x", [""; 0]), None);
    }
}
