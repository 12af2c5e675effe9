//! Pages of a list: `pageSize`, `pageToken`, `nextPageToken`.
//!
//! A token names the last item of its page, so that items that come or go meanwhile neither repeat nor hide others.

use super::ApiError;
use super::query::Query;

/// How many items a page has unless asked otherwise, and at most.
const DEFAULT: usize = 100;
const MOST: usize = 1_000;

/// What `pageSize` asks for.
pub(super) fn size(query: &Query) -> Result<usize, ApiError> {
    match query.last("pageSize") {
        None => Ok(DEFAULT),
        Some(text) => match text.parse::<usize>() {
            Ok(0) => Ok(DEFAULT),
            Ok(size) => Ok(size.min(MOST)),
            Err(_) => Err(ApiError::bad_request("pageSize is not a number")),
        },
    }
}

/// A page of items that are sorted by key: those after `pageToken`, and the next token, empty at the end.
pub(super) fn of<'a, T>(
    items: impl Iterator<Item = (&'a String, T)>,
    query: &Query,
) -> Result<(Vec<T>, String), ApiError> {
    let (size, after) = (size(query)?, query.last("pageToken"));
    let (mut page, mut last, mut more) = (Vec::new(), "", false);
    for (key, item) in items.filter(|(key, _)| after.is_none_or(|after| key.as_str() > after)) {
        more = page.len() >= size;
        if more {
            break;
        }
        last = key;
        page.push(item);
    }
    Ok((page, if more { last.to_owned() } else { String::new() }))
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
}
