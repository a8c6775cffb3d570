//! Tokens that are accepted and refused, and key sets.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;
use crate::encoding::base64url_encode;

#[path = "best_practices.rs"]
mod best_practices;
#[path = "standards.rs"]
mod standards;
#[path = "vectors.rs"]
mod vectors;

const NOW: u64 = 1_000_000_100;
const HEADER: &str = r#"{"alg":"EdDSA","kid":"own","typ":"JWT"}"#;

fn expected() -> Expected {
    Expected {
        issuer: Some("https://id.example.org".to_owned()),
        audience: Some("mail".to_owned()),
        claim: "email".to_owned(),
    }
}

fn own() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn own_set(more: &str) -> String {
    let x = base64url_encode(own().public_key().as_ref());
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"own","x":"{x}"{more}}}]}}"#)
}

fn signed(header: &str, claims: &str) -> String {
    let body = [header, claims]
        .map(|part| base64url_encode(part.as_bytes()))
        .join(".");
    let signature = base64url_encode(own().sign(body.as_bytes()).as_ref());
    format!("{body}.{signature}")
}

fn claims(changes: &str) -> String {
    let mut all = vec![
        (r#""iss""#, r#""https://id.example.org""#),
        (r#""aud""#, r#""mail""#),
        (r#""email""#, r#""alice@example.org""#),
        (r#""exp""#, "1000003600"),
    ];
    all.retain(|(name, _)| !changes.contains(name));
    let mut text: Vec<String> = all
        .iter()
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    text.extend((!changes.is_empty()).then(|| changes.to_owned()));
    format!("{{{}}}", text.join(","))
}

/// Tokens of another library, by each algorithm.
#[test]
fn good_tokens() {
    let keys = KeySet::parse(vectors::KEYS.as_bytes()).unwrap();
    assert_eq!(keys.keys.len(), 4);
    for (algorithm, token) in vectors::TOKENS {
        let account = keys.verify(token, &expected(), NOW);
        assert_eq!(account.as_deref(), Ok("alice@example.org"), "{algorithm}");
        // One octet of each part is changed.
        for at in [30, token.find('.').unwrap() + 30, token.len() - 30] {
            let mut octets = token.as_bytes().to_vec();
            octets[at] = if octets[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(octets).unwrap();
            assert!(
                keys.verify(&broken, &expected(), NOW).is_err(),
                "{algorithm} {at}"
            );
        }
    }
    for token in vectors::FOREIGN {
        assert!(keys.verify(token, &expected(), NOW).is_err());
    }
    assert!(KeySet::parse(vectors::SMALL.as_bytes()).is_err());
}

/// RFC 7515 §A.3.
#[test]
fn the_example_of_the_standard() {
    let keys = r#"{"keys":[{"kty":"EC","crv":"P-256",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let keys = KeySet::parse(keys.as_bytes()).unwrap();
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxl\
                 LmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8IS\
                 lSApmWQxfKTUJqPP3-Kg6NU1Q";
    let expected = Expected {
        issuer: None,
        audience: None,
        claim: "iss".to_owned(),
    };
    assert_eq!(
        keys.verify(token, &expected, 1_300_819_300).as_deref(),
        Ok("joe")
    );
}

/// Claims that are accepted, and claims that are refused.
#[test]
fn claims_are_checked() {
    let keys = KeySet::parse(own_set("").as_bytes()).unwrap();
    let verify = |changes: &str| keys.verify(&signed(HEADER, &claims(changes)), &expected(), NOW);
    for good in [
        "",
        r#""aud":["web","mail"]"#,
        r#""exp":1000000041"#,
        r#""exp":1000000040.5"#,
        r#""nbf":1000000160"#,
        r#""email_verified":true"#,
        r#""x":{"y":[{"z":1},{"z":2}]}"#,
    ] {
        assert_eq!(verify(good).as_deref(), Ok("alice@example.org"), "{good}");
    }
    for bad in [
        r#""exp":1000000040"#,
        r#""exp":1e999"#,
        r#""exp":"1000003600""#,
        r#""exp":null"#,
        r#""nbf":1000000161"#,
        r#""nbf":"0""#,
        r#""iss":"https://id.example.com""#,
        r#""iss":["https://id.example.org"]"#,
        r#""aud":"web""#,
        r#""aud":[]"#,
        r#""aud":{"mail":1}"#,
        r#""email":"""#,
        r#""email":["alice@example.org"]"#,
        r#""email_verified":false"#,
        r#""email_verified":"true""#,
        r#""sub":"1","sub":"1""#,
        r#""x":{"y":1,"y":1}"#,
    ] {
        assert!(verify(bad).is_err(), "{bad}");
    }
    for missing in ["iss", "aud", "email", "exp"] {
        let text = claims("").replace(&format!("\"{missing}\""), "\"other\"");
        assert!(
            keys.verify(&signed(HEADER, &text), &expected(), NOW)
                .is_err(),
            "{missing}"
        );
    }
    // A token with an audience is refused without a configured one.
    let without = Expected {
        audience: None,
        ..expected()
    };
    assert!(
        keys.verify(&signed(HEADER, &claims("")), &without, NOW)
            .is_err()
    );
}

/// Keys that are left out, and sets that are refused.
#[test]
fn key_sets() {
    for other in [
        r#","use":"enc""#,
        r#","key_ops":["sign"]"#,
        r#","key_ops":"verify""#,
        r#","alg":"RS256""#,
    ] {
        let keys = KeySet::parse(own_set(other).as_bytes());
        let token = signed(HEADER, &claims(""));
        assert!(
            !keys.is_ok_and(|keys| keys.verify(&token, &expected(), NOW).is_ok()),
            "{other}"
        );
    }
    for good in [
        r#","use":"sig""#,
        r#","key_ops":["verify"]"#,
        r#","alg":"EdDSA""#,
    ] {
        let keys = KeySet::parse(own_set(good).as_bytes()).unwrap();
        assert!(
            keys.verify(&signed(HEADER, &claims("")), &expected(), NOW)
                .is_ok(),
            "{good}"
        );
    }
    for wrong in [
        "",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":["x"]}"#,
        r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#,
        r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}]}"#,
        r#"{"keys":[{"kty":"EC","crv":"P-521","x":"AAAA","y":"AAAA"}]}"#,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}"#,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519"}]}"#,
        r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#,
        r#"{"keys":[],"keys":[]}"#,
    ] {
        assert!(KeySet::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(KeySet::parse(own_set(r#","d":"AAAA""#).as_bytes()).is_err());
    let one = own_set("");
    let one = one
        .trim_start_matches(r#"{"keys":["#)
        .trim_end_matches("]}");
    let many = format!(r#"{{"keys":[{}]}}"#, vec![one; MAX_KEYS + 1].join(","));
    assert!(KeySet::parse(many.as_bytes()).is_err());
}
