//! Each back-end that is compiled in gives the same verdict, and verifies what any other signed. `.ci/run` runs these tests with
//! both. Keys and signatures are those of RFC 6979 (appendix A.2) and RFC 4231.

use jsonwebtoken::crypto::CryptoProvider;

use super::*;

const D: &str = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
const X: &str = "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6";
const Y: &str = "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
const MESSAGE: &[u8] = b"sample";
const R: &str = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716";
const S: &str = "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";

const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const PRIME: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const ONES: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

const D_P384: &str =
    "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5";
const X_P384: &str =
    "ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13";
const Y_P384: &str =
    "8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720";

fn providers() -> Vec<(&'static str, &'static CryptoProvider)> {
    Vec::from([
        #[cfg(feature = "aws-lc")]
        ("aws-lc", &jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER),
        #[cfg(feature = "pure-rust")]
        ("pure-rust", &pure_rust::PROVIDER),
    ])
}

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn joined(first: &str, second: &str) -> Vec<u8> {
    bytes(&format!("{first}{second}"))
}

/// The key of a JWK with these coordinates.
fn public(x: &str, y: &str) -> DecodingKey {
    DecodingKey::from_ec_der(&bytes(&format!("04{x}{y}")))
}

/// PKCS#8 (RFC 5958) of an EC key on P-256, with its public key.
fn private(d: &str, x: &str, y: &str) -> EncodingKey {
    let curve = "301306072a8648ce3d020106082a8648ce3d030107";
    let der = format!("308187020100{curve}046d306b0201010420{d}a14403420004{x}{y}");
    EncodingKey::from_ec_der(&bytes(&der))
}

/// The same without the public key.
fn private_alone(d: &str) -> EncodingKey {
    let curve = "301306072a8648ce3d020106082a8648ce3d030107";
    EncodingKey::from_ec_der(&bytes(&format!("3041020100{curve}042730250201010420{d}")))
}

fn signature(provider: &CryptoProvider, algorithm: Algorithm, key: &EncodingKey) -> Option<Vec<u8>> {
    (provider.signer_factory)(&algorithm, key).ok()?.try_sign(MESSAGE).ok()
}

fn holds(
    provider: &CryptoProvider,
    algorithm: Algorithm,
    key: &DecodingKey,
    message: &[u8],
    signature: &Vec<u8>,
) -> bool {
    (provider.verifier_factory)(&algorithm, key)
        .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
}

#[track_caller]
fn assert_es256(name: &str, key: &DecodingKey, signature: &Vec<u8>, expected: bool) {
    for (back_end, provider) in providers() {
        let verdict = holds(provider, Algorithm::ES256, key, MESSAGE, signature);
        assert_eq!(verdict, expected, "{back_end}: {name}");
    }
}

#[track_caller]
fn assert_hs256(name: &str, key: &DecodingKey, mac: &Vec<u8>, expected: bool) {
    for (back_end, provider) in providers() {
        let verdict = holds(provider, Algorithm::HS256, key, MESSAGE, mac);
        assert_eq!(verdict, expected, "{back_end}: {name}");
    }
}

#[test]
fn each_back_end_verifies_what_any_signed() {
    let secret = b"some-good-secret";
    let pairs = [
        (Algorithm::HS256, EncodingKey::from_secret(secret), DecodingKey::from_secret(secret)),
        (Algorithm::ES256, private(D, X, Y), public(X, Y)),
    ];
    for (algorithm, private, public) in pairs {
        for (by, signing) in providers() {
            let signature = signature(signing, algorithm, &private).unwrap();
            for (back_end, verifying) in providers() {
                let holds = |message: &[u8]| holds(verifying, algorithm, &public, message, &signature);
                assert!(holds(MESSAGE), "{back_end} refuses {algorithm:?} of {by}");
                assert!(!holds(b"Sample"), "{back_end} verifies {algorithm:?} of {by} for another message");
            }
        }
    }
}

#[test]
fn known_answers() {
    for (back_end, provider) in providers() {
        // RFC 4231, section 4.3.
        let (key, message) = (EncodingKey::from_secret(b"Jefe"), b"what do ya want for nothing?");
        let signer = (provider.signer_factory)(&Algorithm::HS256, &key).unwrap();
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signer.algorithm(), Algorithm::HS256);
        assert_eq!(hex::encode(signer.sign(message)), expected, "{back_end}");
    }
    // RFC 6979, appendix A.2.5.
    assert_es256("of the RFC", &public(X, Y), &joined(R, S), true);
    #[cfg(feature = "pure-rust")]
    assert_eq!(
        signature(&pure_rust::PROVIDER, Algorithm::ES256, &private(D, X, Y)),
        Some(joined(R, S)),
        "pure-rust signs without random numbers"
    );
}

#[test]
fn odd_es256_signatures() {
    let key = public(X, Y);
    // The s of the RFC is the higher of the two that fit, this is the lower: the order less s.
    let low = "0834e36ad29a83bf2bc9385e491d6099c8fdf9d1ed67aa7ea5f51f93782857a9";
    assert_es256("high s", &key, &joined(R, S), true);
    assert_es256("low s", &key, &joined(R, low), true);
    let one = "0000000000000000000000000000000000000000000000000000000000000001";
    let odd = [
        ("empty", Vec::new()),
        ("r alone", bytes(R)),
        ("a byte less", joined(R, &S[2..])),
        ("a byte more", joined(R, &format!("{S}00"))),
        ("a zero before", joined(&format!("00{R}"), S)),
        ("twice", joined(&format!("{R}{S}"), &format!("{R}{S}"))),
        ("r is 0", joined(ZERO, S)),
        ("s is 0", joined(R, ZERO)),
        ("both are 0", joined(ZERO, ZERO)),
        ("both are 1", joined(one, one)),
        ("r is the order", joined(ORDER, S)),
        ("s is the order", joined(R, ORDER)),
        ("r is the prime", joined(PRIME, S)),
        ("all ones", joined(ONES, ONES)),
        ("swapped", joined(S, R)),
        ("DER", bytes(&format!("3046022100{R}022100{S}"))),
        ("of P-384's length", vec![1; 96]),
    ];
    for (name, signature) in &odd {
        assert_es256(name, &key, signature, false);
    }
}

#[test]
fn a_changed_byte_is_refused() {
    let (key, good) = (bytes(&format!("{X}{Y}")), joined(R, S));
    for at in 0..64 {
        let (mut changed_key, mut changed) = (key.clone(), good.clone());
        changed_key[at] ^= 1;
        changed[at] ^= 1;
        assert_es256(&format!("signature, byte {at}"), &public(X, Y), &changed, false);
        let hex = hex::encode(&changed_key);
        assert_es256(&format!("key, byte {at}"), &public(&hex[..64], &hex[64..]), &good, false);
    }
}

#[test]
fn odd_public_keys_verify_nothing() {
    let signature = joined(R, S);
    let odd = [
        ("of another algorithm", DecodingKey::from_secret(&bytes(&format!("04{X}{Y}")))),
        ("of RSA", DecodingKey::from_rsa_raw_components(&[0xc1; 256], &[1, 0, 1])),
        ("empty", DecodingKey::from_ec_der(b"")),
        ("the point at infinity", DecodingKey::from_ec_der(&[0])),
        ("coordinates 0", public(ZERO, ZERO)),
        ("all ones", public(ONES, ONES)),
        ("x is the prime", public(PRIME, Y)),
        ("not on the curve", public(Y, X)),
        ("mirrored", public(X, "86fc01eef74743675be51616a9d7439b0d0e4df4d28160ae885c3d6b2bb9dd66")),
        ("a byte less", public(&X[2..], Y)),
        ("a byte more", public(X, &format!("{Y}00"))),
        ("without its form", DecodingKey::from_ec_der(&joined(X, Y))),
        ("on P-384", public(X_P384, Y_P384)),
    ];
    for (name, key) in &odd {
        assert_es256(name, key, &signature, false);
    }
}

#[test]
fn odd_macs() {
    let (_, provider) = providers()[0];
    let key = DecodingKey::from_secret(b"some-good-secret");
    let mac = signature(provider, Algorithm::HS256, &EncodingKey::from_secret(b"some-good-secret")).unwrap();
    assert_hs256("good", &key, &mac, true);
    assert_hs256("of another secret", &DecodingKey::from_secret(b"some-good-secrets"), &mac, false);
    assert_hs256("with a key of ES256", &DecodingKey::from_ec_der(b"some-good-secret"), &mac, false);
    for length in (0..32).chain([33, 64]) {
        let mut odd = mac.clone();
        odd.resize(length, 0);
        assert_hs256(&format!("of {length} bytes"), &key, &odd, false);
    }
    for at in 0..32 {
        let mut changed = mac.clone();
        changed[at] ^= 0x80;
        assert_hs256(&format!("byte {at} changed"), &key, &changed, false);
    }
}

#[test]
fn secrets_of_any_length() {
    for length in [1, 31, 32, 63, 64, 65, 200] {
        let secret = vec![0xa5; length];
        for (by, provider) in providers() {
            let mac = signature(provider, Algorithm::HS256, &EncodingKey::from_secret(&secret)).unwrap();
            assert_hs256(&format!("{length} bytes, by {by}"), &DecodingKey::from_secret(&secret), &mac, true);
        }
    }
}

#[test]
fn odd_private_keys_do_not_sign() {
    let p384 = format!("304e020100301006072a8648ce3d020106052b81040022043730350201010430{D_P384}");
    let whole = private(D, X, Y);
    let (last, der) = (whole.as_bytes().len() - 1, whole.as_bytes());
    let odd = [
        ("of another algorithm", EncodingKey::from_secret(der)),
        ("empty", EncodingKey::from_ec_der(b"")),
        ("not DER", EncodingKey::from_ec_der(b"-----BEGIN PRIVATE KEY-----")),
        ("cut", EncodingKey::from_ec_der(&der[..last])),
        ("the number alone", EncodingKey::from_ec_der(&bytes(D))),
        ("SEC 1", EncodingKey::from_ec_der(&bytes(&format!("30250201010420{D}")))),
        ("0", private_alone(ZERO)),
        ("the order", private_alone(ORDER)),
        ("on P-384", EncodingKey::from_ec_der(&bytes(&p384))),
        ("with a public key that is not on the curve", private(D, Y, X)),
    ];
    for (back_end, provider) in providers() {
        for (name, key) in &odd {
            assert_eq!(signature(provider, Algorithm::ES256, key), None, "{back_end}: {name}");
        }
        let signature = signature(provider, Algorithm::HS256, &whole);
        assert_eq!(signature, None, "{back_end}: a key of ES256 for HS256");
    }
}

#[test]
fn a_private_key_needs_no_public_one() {
    for (back_end, provider) in providers() {
        let signature = signature(provider, Algorithm::ES256, &private_alone(D)).expect(back_end);
        assert_es256(back_end, &public(X, Y), &signature, true);
    }
}

/// Where the back-ends differ: nothing that a [`KeySet`](crate::KeySet) or DT can bring about.
#[cfg(all(feature = "aws-lc", feature = "pure-rust"))]
#[test]
fn pure_rust_is_stricter_about_the_form_of_keys() {
    let verdict = |key: DecodingKey| {
        let verdicts = providers().into_iter();
        verdicts.map(|(_, of)| holds(of, Algorithm::ES256, &key, MESSAGE, &joined(R, S))).collect::<Vec<_>>()
    };
    let point = |form: &str, y: &str| DecodingKey::from_ec_der(&bytes(&format!("{form}{X}{y}")));
    assert_eq!(verdict(point("04", Y)), [true, true], "uncompressed");
    assert_eq!(verdict(point("03", "")), [true, false], "compressed");
    assert_eq!(verdict(point("07", Y)), [true, false], "hybrid");

    let longer = EncodingKey::from_ec_der(&[private(D, X, Y).as_bytes(), &[0]].concat());
    let signed = providers().into_iter().map(|(_, of)| signature(of, Algorithm::ES256, &longer).is_some());
    assert_eq!(signed.collect::<Vec<_>>(), [true, false], "PKCS#8 with a byte behind it");
}

#[cfg(feature = "pure-rust")]
#[test]
fn pure_rust_has_two_algorithms_alone() {
    use Algorithm::{ES384, EdDSA, HS384, HS512, PS256, RS256};

    for algorithm in [HS384, HS512, ES384, RS256, PS256, EdDSA] {
        for key in [EncodingKey::from_secret(b"secret"), private(D, X, Y)] {
            let refused = (pure_rust::PROVIDER.signer_factory)(&algorithm, &key).err().unwrap();
            assert_eq!(*refused.kind(), ErrorKind::UnsupportedAlgorithm, "{algorithm:?}");
        }
        for key in [DecodingKey::from_secret(b"secret"), public(X, Y)] {
            let refused = (pure_rust::PROVIDER.verifier_factory)(&algorithm, &key).err().unwrap();
            assert_eq!(*refused.kind(), ErrorKind::UnsupportedAlgorithm, "{algorithm:?}");
        }
    }
}
