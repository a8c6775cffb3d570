//! The keys and signatures that RFC 7520 and RFC 8037 print. Their payloads are plain text and not claims, so only the
//! signatures are checked.

use super::*;

/// RFC 7520 §3.3: the modulus of the RSA key.
const MODULUS: &str = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMa\
    JMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6c\
    S6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwd\
    q_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw";
/// RFC 7520 §4: what is signed.
const PAYLOAD: &str = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0\
    aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91\
    IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";
/// RFC 7520 §4.1.
const RS256: &str = "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7P\
    NDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9e\
    Ro4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4\
    uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg";
/// RFC 7520 §4.2.
const PS384: &str = "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dD\
    DItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ij\
    Q7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAj\
    VKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw";
/// RFC 7520 §3.1, §3.5: a curve and a type of key that are not supported.
const FOREIGN: &str = r#"
    {"kty":"EC","kid":"bilbo.baggins@hobbiton.example","use":"sig","crv":"P-521",
     "x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
     "y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"},
    {"kty":"oct","kid":"018c0ae5-4d9b-471b-bfd6-eef314bc7037","use":"sig","alg":"HS256",
     "k":"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"}"#;
/// RFC 8037 §A.2.
const ED25519: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
/// RFC 8037 §A.4.
const EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
    hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

/// The verdict on a signature alone.
fn check_signature(keys: &KeySet, token: &str) -> Result<(), &'static str> {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let header = decode(header).unwrap();
    let signature = base64url_decode(signature).unwrap();
    keys.verify_signature(object(&header).unwrap(), signed.as_bytes(), &signature)
}

fn hobbiton(algorithm: &str, signature: &str) -> String {
    let header = format!(r#"{{"alg":"{algorithm}","kid":"bilbo.baggins@hobbiton.example"}}"#);
    let header = base64url_encode(header.as_bytes());
    format!("{header}.{PAYLOAD}.{signature}")
}

#[test]
fn rfc_7520_section_4_1_rs256() {
    let rsa = format!(
        r#"{{"kty":"RSA","kid":"bilbo.baggins@hobbiton.example","use":"sig","n":"{MODULUS}","e":"AQAB"}}"#
    );
    let keys = format!(r#"{{"keys":[{FOREIGN},{rsa}]}}"#);
    let keys = KeySet::parse(keys.as_bytes()).unwrap();
    assert_eq!(keys.keys.len(), 1, "only usable keys are kept");
    assert_eq!(check_signature(&keys, &hobbiton("RS256", RS256)), Ok(()));
    // A good signature of an unsupported algorithm, and signatures of another algorithm than the header says.
    for (algorithm, signature) in [("PS384", PS384), ("PS256", RS256), ("RS256", PS384)] {
        let token = hobbiton(algorithm, signature);
        assert!(check_signature(&keys, &token).is_err(), "{algorithm}");
    }
    let account = keys.verify(&hobbiton("RS256", RS256), &expected(), NOW);
    assert!(account.is_err(), "no claims");
}

#[test]
fn rfc_7520_section_3_unsupported_keys() {
    assert!(KeySet::parse(format!(r#"{{"keys":[{FOREIGN}]}}"#).as_bytes()).is_err());
}

#[test]
fn rfc_8037_appendix_a_4_ed25519() {
    let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED25519}"}}"#);
    let keys = KeySet::parse(format!(r#"{{"keys":[{key}]}}"#).as_bytes()).unwrap();
    assert_eq!(check_signature(&keys, EDDSA), Ok(()));
    let other = EDDSA.replacen("RXhh", "RXhi", 1);
    assert!(check_signature(&keys, &other).is_err());
    // §A.6: a key of X25519 is for key agreement.
    let agreement = key.replace("Ed25519", "X25519");
    assert!(KeySet::parse(format!(r#"{{"keys":[{agreement}]}}"#).as_bytes()).is_err());
    // §A.1: the private key does not belong in a set for verification.
    let private = key.replace(
        '}',
        r#","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}"#,
    );
    assert!(KeySet::parse(format!(r#"{{"keys":[{private}]}}"#).as_bytes()).is_err());
}
