//! Requests with signatures: vectors, and claims that the target signs.

use std::collections::BTreeMap;

use dt_receiver_fuzz::NOW;
use dt_receiver_fuzz::setups::{SETUPS, setup};

use crate::Seeds;
use crate::vectors::{MAX_SEED, body_of, text, vectors};

/// How many vectors of one verifier and one expectation are worth having.
const MAX_ALIKE: usize = 3;

fn letter(verifier: &str) -> char {
    let at = SETUPS.iter().position(|setup| setup.name == verifier).expect("a verifier of the vectors");
    char::from(b'a' + u8::try_from(at).expect("few"))
}

/// Vectors, and claims that the target signs.
pub fn requests() -> Seeds {
    let mut seeds = Seeds::new();
    let mut alike: BTreeMap<(String, String), usize> = BTreeMap::new();
    for vector in vectors() {
        let (verifier, expect) = (text(&vector, "verifier"), text(&vector, "expect"));
        let mut seed = format!("{}{}\n", letter(verifier), vector["now"]).into_bytes();
        for header in vector["headers"].as_array().expect("a list") {
            let (name, value) = (header[0].as_str().expect("a text"), header[1].as_str().expect("a text"));
            seed.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
        seed.push(b'\n');
        seed.extend(body_of(&vector));
        let seen = alike.entry((verifier.to_owned(), expect.to_owned())).or_default();
        if seed.len() <= MAX_SEED && *seen < MAX_ALIKE {
            *seen += 1;
            seeds.insert(format!("{verifier}-{}", text(&vector, "name")), seed);
        }
    }

    let hs = r#"{"alg":"HS256","typ":"JWT"}"#;
    let kid = setup("asym").key_set.as_ref().and_then(|set| set["keys"][0]["kid"].as_str()).unwrap_or("");
    let es = format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT"}}"#);
    let iss =
        r#""iss":"https://identity.disruptive-technologies.com/data-connector","sub":"c0ngtest0rg0vd5c9a1g""#;
    let (iat, exp) = (NOW - 2, NOW + 3598);
    let secret_claims = [
        (
            "both_sums",
            format!(
                r#"{{"checksum":"$SHA1","checksum_sha256":"$SHA256","exp":{exp},"iat":{iat},"jti":"x"}}"#
            ),
        ),
        ("sha1", format!(r#"{{"checksum":"$SHA1","exp":{exp}}}"#)),
        ("null_sum", format!(r#"{{"checksum":null,"checksum_sha256":"$SHA256","exp":{exp}.5,"iat":null}}"#)),
        ("no_sum", format!(r#"{{"exp":{exp}}}"#)),
        ("no_exp", r#"{"checksum_sha256":"$SHA256"}"#.to_owned()),
        ("expired", format!(r#"{{"checksum_sha256":"$SHA256","exp":{}}}"#, NOW - 60)),
        ("nearly_expired", format!(r#"{{"checksum_sha256":"$SHA256","exp":{}}}"#, NOW - 59)),
        ("future", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"iat":{}}}"#, NOW + 61)),
        ("nbf", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"nbf":{}}}"#, NOW + 60)),
        ("huge_exp", r#"{"checksum_sha256":"$SHA256","exp":9223372036854775807,"iat":-1e300}"#.to_owned()),
        ("float_exp", r#"{"checksum_sha256":"$SHA256","exp":1e300,"nbf":-9223372036854775808}"#.to_owned()),
        ("text_exp", r#"{"checksum_sha256":"$SHA256","exp":"1736003598"}"#.to_owned()),
        ("twice", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"exp":{exp}}}"#)),
        ("array", "[\"$SHA256\"]".to_owned()),
    ];
    for (name, claims) in &secret_claims {
        for verifier in ["secret", "both", "required"] {
            let seed = format!(
                "{}{NOW}\nX-Dt-Signature: !{hs}!{claims}\nx-my-header: my-value\n\n{{}}",
                letter(verifier)
            );
            seeds.insert(format!("signed-{verifier}-{name}"), seed.into_bytes());
        }
    }
    let asymmetric_claims = [
        ("good", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"iat":{iat},{iss},"jti":"x"}}"#)),
        ("no_exp", format!(r#"{{"checksum_sha256":"$SHA256","iat":{iat},{iss}}}"#)),
        ("no_times", format!(r#"{{"checksum_sha256":"$SHA256",{iss}}}"#)),
        ("no_iss", format!(r#"{{"checksum_sha256":"$SHA256","exp":{exp},"sub":"c0ngtest0rg0vd5c9a1g"}}"#)),
        ("expired", format!(r#"{{"checksum_sha256":"$SHA256","exp":{},{iss}}}"#, NOW - 61)),
    ];
    for (name, claims) in &asymmetric_claims {
        for verifier in ["asym", "asym_one", "either"] {
            let seed = format!("{}{NOW}\nDT-Asymmetric-Signature: !{es}!{claims}\n\n{{}}", letter(verifier));
            seeds.insert(format!("signed-{verifier}-{name}"), seed.into_bytes());
        }
        for verifier in ["both", "either"] {
            let (_, secret) = &secret_claims[0];
            let seed = format!(
                "{}{NOW}\nX-Dt-Signature: !{hs}!{secret}\nDT-Asymmetric-Signature: !{es}!{claims}\n\nbody",
                letter(verifier)
            );
            seeds.insert(format!("signed-two-{verifier}-{name}"), seed.into_bytes());
        }
    }
    seeds
}
