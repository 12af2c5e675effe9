//! "Did you mean …": the choice that a mistyped word is most like.

/// Returns the choice that is most like `found`, if one is so close that a slip of the finger explains the difference:
/// one character wrong, missing, extra or swapped, and one more for every further three characters.
pub fn closest<'a>(found: &str, choices: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// No choice is longer; a long text, such as a secret in the wrong place, takes no time.
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

/// Returns `did you mean "CHOICE"? ` for the closest choice, or nothing.
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
