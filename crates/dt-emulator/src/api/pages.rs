//! Pages of a list: `pageSize`, `pageToken`, `nextPageToken`.
//!
//! A token names the last item of its page, so that items that are added or removed meanwhile neither repeat nor hide others.

use super::ApiError;
use super::query::Query;

/// The default number of items of a page.
const DEFAULT: usize = 100;

/// The largest number of items of a page.
const MAX: usize = 1_000;

/// Reads `pageSize`.
pub fn size(query: &Query) -> Result<usize, ApiError> {
    match query.last("pageSize") {
        None => Ok(DEFAULT),
        Some(text) => match text.parse::<usize>() {
            Ok(0) => Ok(DEFAULT),
            Ok(size) => Ok(size.min(MAX)),
            Err(_) => Err(ApiError::bad_request("pageSize is not a number")),
        },
    }
}

/// Returns a page of items that are sorted by key: those after `pageToken`, and the next token, which is empty at the end.
pub fn of<'a, T>(
    items: impl Iterator<Item = (&'a String, T)>,
    query: &Query,
) -> Result<(Vec<T>, String), ApiError> {
    let after = query.last("pageToken");
    Ok(first(items.filter(|(key, _)| after.is_none_or(|after| key.as_str() > after)), size(query)?))
}

/// Returns a page of items in any order: those after the one that `pageToken` names, which must still exist.
pub fn in_order<'a, T>(
    mut items: impl Iterator<Item = (&'a String, T)>,
    query: &Query,
) -> Result<(Vec<T>, String), ApiError> {
    let size = size(query)?;
    if let Some(after) = query.last("pageToken")
        && !items.any(|(key, _)| key == after)
    {
        return Err(ApiError::bad_request(
            "pageToken: its item does not exist any more; start at the first page",
        ));
    }
    Ok(first(items, size))
}

/// Returns the first `size` items, and the key of the last of them if there are more.
fn first<'a, T>(items: impl Iterator<Item = (&'a String, T)>, size: usize) -> (Vec<T>, String) {
    let (mut page, mut last, mut more) = (Vec::new(), "", false);
    for (key, item) in items {
        more = page.len() >= size;
        if more {
            break;
        }
        last = key;
        page.push(item);
    }
    (page, if more { last.to_owned() } else { String::new() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let items: BTreeMap<String, u8> = (0..5).map(|n| (format!("k{n}"), n)).collect();
        let page = |query: &str| of(items.iter(), &Query::read(query)).unwrap();
        assert_eq!(page("pageSize=2"), (vec![&0, &1], "k1".to_owned()));
        assert_eq!(page("pageSize=2&pageToken=k1"), (vec![&2, &3], "k3".to_owned()));
        assert_eq!(page("pageSize=2&pageToken=k3"), (vec![&4], String::new()));
        assert_eq!(page("pageSize=5").1, "");
        assert_eq!(page("pageToken=zzz").0.len(), 0);
        assert!(of(items.iter(), &Query::read("pageSize=x")).is_err());
    }

    #[test]
    fn pages_in_another_order_follow_each_other() {
        let items: BTreeMap<String, u8> = (0..3).map(|n| (format!("k{n}"), n)).collect();
        let page =
            |query: &str| in_order(items.iter().rev(), &Query::read(query)).map_err(|error| error.status);
        assert_eq!(page("pageSize=2"), Ok((vec![&2, &1], "k1".to_owned())));
        assert_eq!(page("pageSize=2&pageToken=k1"), Ok((vec![&0], String::new())));
        assert_eq!(page("pageToken=gone"), Err(http::StatusCode::BAD_REQUEST));
    }
}
