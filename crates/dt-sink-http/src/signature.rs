//! The signature headers of a request: DT's own headers as received, as long as they are valid, or a new signature.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use dt_sink::Record;
use dt_verify::{ASYMMETRIC_HEADER, SECRET_HEADER, Signer, SignerError, TOKEN_LIFETIME, xid};

/// The smallest remaining lifetime of a forwarded token, in seconds: the request may take a while, and clocks differ.
const MIN_TIME_LEFT: i64 = 300;

/// Determines which signature headers a request has.
#[derive(Debug)]
pub struct Signatures {
    /// Whether DT's own headers are forwarded while they are valid.
    pub is_forwarding: bool,
    /// The signer for requests without DT's headers; `None` if they are not signed.
    pub signer: Option<Signer>,
}

/// The signature headers of one request.
#[derive(Debug, Default)]
pub struct Signed {
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the request has a new signature.
    pub is_new: bool,
}

impl Signatures {
    /// Returns the signature headers for a request with these records and this body. `now` is in Unix seconds. `unique` is the
    /// unique part of a new token's id.
    ///
    /// # Errors
    ///
    /// [`SignerError`] if the cryptographic back-end does not sign.
    pub fn headers(
        &self,
        records: &[std::sync::Arc<Record>],
        body: &[u8],
        now: i64,
        unique: [u8; 8],
    ) -> Result<Signed, SignerError> {
        if let ([record], true) = (records, self.is_forwarding)
            && let Some(headers) = forwarded(record, now)
        {
            return Ok(Signed { headers, is_new: false });
        }
        let Some(signer) = &self.signer else { return Ok(Signed::default()) };
        let token = signer.sign(body, now, &xid(now, unique))?;
        let headers = header(signer.header_name(), &token).into_iter().collect();
        Ok(Signed { headers, is_new: true })
    }
}

/// Returns DT's own signature headers of a record; `None` if there are none, or if a token is not valid for long enough.
fn forwarded(record: &Record, now: i64) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let signatures = record.headers.signatures();
    if signatures.is_empty() {
        return None;
    }
    let is_valid =
        |token: &str| expiry(token).is_some_and(|expiry| expiry.saturating_sub(now) >= MIN_TIME_LEFT);
    signatures.iter().map(|(name, token)| header(name, token).filter(|_| is_valid(token))).collect()
}

/// Returns when a token expires, in Unix seconds: its `exp`, or else an hour after its `iat`, as in the receiver's own
/// verification. `None` if it has neither. The token was verified when its record was accepted.
fn expiry(token: &str) -> Option<i64> {
    let payload = token.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let seconds = |name: &str| {
        let claim = claims.get(name)?;
        // A fraction is allowed (RFC 7519, section 2), and does not matter here.
        claim.as_i64().or_else(|| claim.as_f64()?.floor().to_string().parse().ok())
    };
    seconds("exp").or_else(|| seconds("iat")?.checked_add(TOKEN_LIFETIME))
}

/// Returns a signature header, which is marked as sensitive, so that it is never shown or indexed. `None` if the token cannot be
/// part of a header.
fn header(name: &str, token: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = match name {
        SECRET_HEADER => HeaderName::from_static("x-dt-signature"),
        ASYMMETRIC_HEADER => HeaderName::from_static("dt-asymmetric-signature"),
        _ => return None,
    };
    let mut value = HeaderValue::from_str(token).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use dt_verify::Secret;
    use http::HeaderMap;

    const NOW: i64 = 1_700_000_000;

    fn signer(secret: &str) -> Signer {
        Signer::secret(Secret::new(secret).expect("not empty"))
    }

    fn record(tokens: &[(&'static str, String)]) -> Arc<Record> {
        let mut headers = HeaderMap::new();
        for (name, token) in tokens {
            headers.append(*name, token.parse().expect("a value"));
        }
        Arc::new(Record::sample("a").with_headers(&headers))
    }

    /// Returns the names and values of the signature headers of a record's request, and whether a new signature was made.
    fn signed(signatures: &Signatures, record: &Arc<Record>) -> (Vec<(String, String)>, bool) {
        let signed =
            signatures.headers(std::slice::from_ref(record), &record.body, NOW, [0; 8]).expect("signed");
        assert!(signed.headers.iter().all(|(_, value)| value.is_sensitive()));
        let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
        let headers = signed.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        (headers.collect(), signed.is_new)
    }

    #[test]
    fn dts_token_is_forwarded_until_it_is_near_its_end() {
        let signatures = Signatures { is_forwarding: true, signer: Some(signer("new")) };
        for (age, is_forwarded) in [(0, true), (3300, true), (3301, false), (3600, false), (7200, false)] {
            let token = signer("dt").sign(b"{}", NOW - age, "jti").expect("signed");
            let (headers, is_new) = signed(&signatures, &record(&[("x-dt-signature", token.clone())]));
            let [(name, value)] = &headers[..] else { panic!("{headers:?}") };
            assert_eq!(
                (name.as_str(), *value == token, is_new),
                ("x-dt-signature", is_forwarded, !is_forwarded)
            );
        }
    }

    #[test]
    fn without_a_valid_token_of_dt_the_request_is_signed_anew() {
        let signatures = Signatures { is_forwarding: true, signer: Some(signer("new")) };
        let valid = signer("dt").sign(b"{}", NOW, "jti").expect("signed");
        let expired = signer("dt").sign(b"{}", NOW - 7200, "jti").expect("signed");
        let both = [("x-dt-signature", valid.clone()), ("dt-asymmetric-signature", expired.clone())];
        for tokens in [&[][..], &[("x-dt-signature", "no.token.".to_owned())], &both] {
            let (headers, is_new) = signed(&signatures, &record(tokens));
            assert!(is_new);
            let [(name, value)] = &headers[..] else { panic!("{headers:?}") };
            assert!(name == "x-dt-signature" && *value != valid && *value != expired);
        }
        let both = [("x-dt-signature", valid.clone()), ("dt-asymmetric-signature", valid.clone())];
        assert_eq!(signed(&signatures, &record(&both)).0.len(), 2);
        let none = Signatures { is_forwarding: false, signer: None };
        assert_eq!(signed(&none, &record(&both)), (Vec::new(), false));
    }

    #[test]
    fn the_end_of_a_token_is_exp_or_an_hour_after_iat() {
        let token = |claims: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        for (claims, expected) in [
            (r#"{"iat":100,"exp":200}"#, Some(200)),
            (r#"{"iat":100}"#, Some(3700)),
            (r#"{"exp":200.75}"#, Some(200)),
            (r#"{"exp":"200"}"#, None),
            ("{}", None),
            ("[", None),
        ] {
            assert_eq!(expiry(&token(claims)), expected, "{claims}");
        }
        assert_eq!(expiry("e30"), None);
    }
}
