//! The query of a URL. Its names are in camel case or snake case, since DT's clients use both.

/// The names and values of a query, in order.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn read(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Returns all values of a name in camel case that are not empty.
    pub fn whole<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(key, _)| is_name(key, name));
        named.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns all values of a name in camel case that are not empty. A comma separates values.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.whole(name).flat_map(|value| value.split(',')).filter(|value| !value.is_empty())
    }

    /// Returns the last value of a name in camel case that is not empty.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(key, value)| is_name(key, name) && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

/// Returns whether `key` is `name` in camel case (`pageToken`) or in snake case (`page_token`).
fn is_name(key: &str, name: &str) -> bool {
    let plain =
        |text: &str| text.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect::<String>();
    key == name || plain(key) == plain(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let query = Query::read("eventTypes=a&event_types=b,c&pageToken=&page_token=x%20y&other");
        assert_eq!(query.all("eventTypes").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(query.last("pageToken"), Some("x y"));
        assert_eq!(query.last("other"), None);
    }
}
