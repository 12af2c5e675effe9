//! The trait by which the verifier reads a request's headers. It keeps this crate independent of HTTP crates.

use std::collections::{BTreeMap, HashMap};

/// The result of a look-up of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// There is no header with this name.
    Absent,
    /// There is one header with this name. Contains the bytes of its value.
    Once(&'a [u8]),
    /// There are several headers with this name. The verifier rejects the request, since a choice between the values would be a
    /// guess.
    Repeated,
}

impl<'a> Found<'a> {
    /// Returns the `Found` for the values of all headers with one name.
    pub fn from_values(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::Once(value),
            (Some(_), Some(_)) => Self::Repeated,
        }
    }
}

/// The headers of one request.
///
/// Implemented for slices, arrays, vectors and maps of name-value pairs and, with the feature `http`, for
/// `http::HeaderMap`. Names compare ASCII case-insensitively (RFC 9110, section 5.1), since proxies and frameworks
/// change their case.
///
/// # Examples
///
/// ```
/// use dt_verify::{Found, Headers};
///
/// let headers = [("x-dt-signature", "a.b.c"), ("accept", "*/*")];
/// assert_eq!(headers.find("X-Dt-Signature"), Found::Once(b"a.b.c"));
/// assert_eq!(headers.find("DT-Asymmetric-Signature"), Found::Absent);
/// ```
pub trait Headers {
    /// Returns the value of the header `name`, or that it is absent or repeated. The ASCII case of `name` does not matter.
    ///
    /// A repeated header must be [`Found::Repeated`], never one of its values: another program could read another one.
    fn find(&self, name: &str) -> Found<'_>;
}

fn find_in_pairs<'a, N, V>(pairs: impl Iterator<Item = (&'a N, &'a V)>, name: &str) -> Found<'a>
where
    N: AsRef<str> + 'a,
    V: AsRef<[u8]> + 'a,
{
    Found::from_values(pairs.filter(|(n, _)| n.as_ref().eq_ignore_ascii_case(name)).map(|(_, v)| v.as_ref()))
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn find(&self, name: &str) -> Found<'_> {
        find_in_pairs(self.iter().map(|(n, v)| (n, v)), name)
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const LEN: usize> Headers for [(N, V); LEN] {
    fn find(&self, name: &str) -> Found<'_> {
        self.as_slice().find(name)
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn find(&self, name: &str) -> Found<'_> {
        self.as_slice().find(name)
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for BTreeMap<N, V> {
    fn find(&self, name: &str) -> Found<'_> {
        find_in_pairs(self.iter(), name)
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, S> Headers for HashMap<N, V, S> {
    fn find(&self, name: &str) -> Found<'_> {
        find_in_pairs(self.iter(), name)
    }
}

#[cfg(feature = "http")]
impl Headers for http::HeaderMap {
    fn find(&self, name: &str) -> Found<'_> {
        Found::from_values(self.get_all(name).iter().map(http::HeaderValue::as_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_case_insensitively_in_every_container() {
        let pairs = [("X-DT-SIGNATURE", "v")];
        assert_eq!(pairs.find("x-dt-signature"), Found::Once(b"v"));
        assert_eq!(pairs.to_vec().find("X-Dt-Signature"), Found::Once(b"v"));
        assert_eq!(BTreeMap::from(pairs).find("X-Dt-Signature"), Found::Once(b"v"));
        assert_eq!(HashMap::from(pairs).find("X-Dt-Signature"), Found::Once(b"v"));
    }

    #[test]
    fn two_spellings_of_one_name_are_repeated() {
        let pairs = [("X-Dt-Signature", "v"), ("x-dt-signature", "v")];
        assert_eq!(pairs.find("X-Dt-Signature"), Found::Repeated);
        assert_eq!(BTreeMap::from(pairs).find("X-Dt-Signature"), Found::Repeated);
    }

    #[cfg(feature = "http")]
    #[test]
    fn a_header_map_is_searched_whatever_the_case() {
        let mut map = http::HeaderMap::new();
        map.append("x-dt-signature", http::HeaderValue::from_static("v"));
        assert_eq!(map.find("X-Dt-Signature"), Found::Once(b"v"));
        map.append("x-dt-signature", http::HeaderValue::from_static("w"));
        assert_eq!(map.find("X-Dt-Signature"), Found::Repeated);
    }
}
