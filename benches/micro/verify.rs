//! Verification, as the server does it: first the token, then the body.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, Throughput};
use dt_receiver::verify::{DT_ISSUER, KeySet, Signer, Verifier};

use crate::inputs::{self, Delivered};

const KEY: &[u8] = include_bytes!("../../tests/vectors/keys/es256.pk8.der");
const ORGANIZATION: &str = "c0md3mm0c7pet3vico7g";

pub(crate) fn verify(criterion: &mut Criterion) {
    let es256 = Signer::asymmetric(KEY, "key", DT_ISSUER, ORGANIZATION).expect("a key");
    let verifier = Verifier::builder().key_set(key_set(), ORGANIZATION).build().expect("a verifier");
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Elements(1));
    for (name, signer, verifier) in
        [("HS256", inputs::signer(), inputs::verifier()), ("ES256", es256, verifier)]
    {
        let deliveries: Vec<_> = (0..64).map(|number| Delivered::number(number, &signer)).collect();
        let mut turn = deliveries.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| turn.next().expect("endless").verify(&verifier));
        });
    }
    group.finish();
}

/// The public half: a PKCS#8 document of an EC key ends with its coordinates, 32 bytes each.
fn key_set() -> KeySet {
    let (x, y) = KEY[KEY.len() - 64..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let json = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"key","x":"{x}","y":"{y}"}}]}}"#);
    KeySet::from_jwks(json.as_bytes()).expect("a key set")
}
