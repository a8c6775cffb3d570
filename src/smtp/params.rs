//! The parameters of MAIL and RCPT: one table for each. Every parameter may be given once.
//!
//! Those of delivery status notifications (RFC 3461) are parsed even where DSN is not offered: some senders use them
//! without looking at EHLO.

use super::cursor::Cursor;
use super::reply::{self, Reply};
use crate::encoding::xtext_decode;

/// Maximum octets of ENVID (RFC 3461 §4.4).
const MAX_ENVID: usize = 100;
/// Maximum octets of ORCPT (RFC 3461 §4.2).
const MAX_ORCPT: usize = 500;
/// Maximum digits of SIZE (RFC 1870 §6).
const MAX_SIZE_DIGITS: usize = 20;

/// BODY= (RFC 6152 §3, RFC 3030 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyType {
    /// 7BIT
    SevenBit,
    /// 8BITMIME
    EightBit,
    /// BINARYMIME
    Binary,
}

/// RET=: how much of the message a report of failure returns (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header only.
    Headers,
}

impl Ret {
    /// The value as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

/// NOTIFY=: when the sender wants a report about a recipient (RFC 3461 §4.1). All false means NEVER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// Report a delivery.
    pub success: bool,
    /// Report a failure.
    pub failure: bool,
    /// Report a delay.
    pub delay: bool,
}

impl Notify {
    fn parse(value: &str) -> Option<Self> {
        let mut notify = Self::default();
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(notify);
        }
        for word in value.split(',') {
            let flag = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut notify.success,
                "FAILURE" => &mut notify.failure,
                "DELAY" => &mut notify.delay,
                _ => return None,
            };
            *flag = true;
        }
        Some(notify)
    }
}

impl std::fmt::Display for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [
            ("SUCCESS", self.success),
            ("FAILURE", self.failure),
            ("DELAY", self.delay),
        ];
        let mut set = words.iter().filter(|(_, set)| *set).map(|(word, _)| *word);
        f.write_str(set.next().unwrap_or("NEVER"))?;
        set.try_for_each(|word| write!(f, ",{word}"))
    }
}

/// The parameters of MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParams {
    /// Declared size in octets (RFC 1870 §6.1); a number that does not fit counts as the largest.
    pub size: Option<u64>,
    /// Declared body type.
    pub body: Option<BodyType>,
    /// SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689 §2).
    pub requiretls: bool,
    /// The submitter according to another server (AUTH=); empty for `<>` (RFC 4954 §5).
    pub auth: Option<String>,
    /// How much of the message a failure report returns.
    pub ret: Option<Ret>,
    /// The sender's identifier of the envelope, in xtext as it came (RFC 3461 §4.4).
    pub envid: Option<String>,
}

/// The parameters of RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParams {
    /// When the sender wants a report.
    pub notify: Option<Notify>,
    /// The original recipient: address type, `;`, and the address as received, in xtext or as RFC 6533 §3 encodes UTF-8
    /// (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

impl MailParams {
    /// Parses the rest of the command.
    ///
    /// # Errors
    /// 555 for an unknown parameter, 501 for one malformed or given twice.
    pub fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Reply> {
        parse(cursor, MAIL)
    }
}

impl RcptParams {
    /// Parses the rest of the command.
    ///
    /// # Errors
    /// 555 for an unknown parameter, 501 for one malformed or given twice.
    pub fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Reply> {
        parse(cursor, RCPT)
    }
}

/// A row: the name, and the function that sets the value; it returns `None` if the value is malformed or already set.
type ParamRow<P> = (&'static str, fn(&mut P, Option<&str>) -> Option<()>);

const MAIL: &[ParamRow<MailParams>] = &[
    ("SIZE", |p, v| once(&mut p.size, v.and_then(size))),
    ("BODY", |p, v| once(&mut p.body, v.and_then(body))),
    ("SMTPUTF8", |p, v| flag(&mut p.smtputf8, v)),
    ("REQUIRETLS", |p, v| flag(&mut p.requiretls, v)),
    ("AUTH", |p, v| once(&mut p.auth, v.and_then(submitter))),
    ("RET", |p, v| once(&mut p.ret, v.and_then(ret))),
    ("ENVID", |p, v| once(&mut p.envid, v.and_then(envid))),
];

const RCPT: &[ParamRow<RcptParams>] = &[
    ("NOTIFY", |p, v| {
        once(&mut p.notify, v.and_then(Notify::parse))
    }),
    ("ORCPT", |p, v| once(&mut p.orcpt, v.and_then(orcpt))),
];

fn parse<P: Default>(cursor: &mut Cursor<'_>, table: &[ParamRow<P>]) -> Result<P, Reply> {
    let mut params = P::default();
    if !cursor.rest().is_empty() && !cursor.spaces() {
        return Err(reply::BAD_PARAMETER);
    }
    let words = cursor.rest().split([' ', '\t']);
    for word in words.filter(|word| !word.is_empty()) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let row = table.iter().find(|row| row.0.eq_ignore_ascii_case(name));
        let (_, set) = row.ok_or(reply::UNKNOWN_PARAMETER)?;
        set(&mut params, value).ok_or(reply::BAD_PARAMETER)?;
    }
    Ok(params)
}

fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Option<()> {
    slot.replace(value?).is_none().then_some(())
}

fn flag(slot: &mut bool, value: Option<&str>) -> Option<()> {
    (value.is_none() && !std::mem::replace(slot, true)).then_some(())
}

fn size(value: &str) -> Option<u64> {
    let digits = (1..=MAX_SIZE_DIGITS).contains(&value.len());
    let digits = digits && value.bytes().all(|o| o.is_ascii_digit());
    // 20 digits may overflow a u64; the result exceeds any limit either way.
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

fn body(value: &str) -> Option<BodyType> {
    let types = [
        ("7BIT", BodyType::SevenBit),
        ("8BITMIME", BodyType::EightBit),
        ("BINARYMIME", BodyType::Binary),
    ];
    let row = types.iter().find(|row| row.0.eq_ignore_ascii_case(value));
    row.map(|(_, body)| *body)
}

fn submitter(value: &str) -> Option<String> {
    match value {
        "<>" => Some(String::new()),
        coded => xtext_decode(coded).filter(|decoded| !decoded.is_empty()),
    }
}

fn ret(value: &str) -> Option<Ret> {
    let all = [Ret::Full, Ret::Headers];
    let mut all = all.into_iter();
    all.find(|ret| ret.as_str().eq_ignore_ascii_case(value))
}

fn envid(value: &str) -> Option<String> {
    let good = value.len() <= MAX_ENVID && value.bytes().all(|o| o.is_ascii_graphic());
    let decoded = xtext_decode(value).filter(|_| good)?;
    (!decoded.is_empty()).then(|| value.to_owned())
}

fn orcpt(value: &str) -> Option<String> {
    original_recipient(value).map(|_| value.to_owned())
}

/// The type and the decoded address of an ORCPT (RFC 3461 §4.2, RFC 6533 §3); `None` if it is malformed.
pub fn original_recipient(value: &str) -> Option<(&str, String)> {
    let (kind, address) = value.split_once(';')?;
    let atom = |c: u8| c.is_ascii_graphic() && !b"()<>[]:;@\\,.\"=".contains(&c);
    if value.len() > MAX_ORCPT || kind.is_empty() || !kind.bytes().all(atom) {
        return None;
    }
    let decoded = if kind.eq_ignore_ascii_case("utf-8") {
        utf8_decode(address)
    } else {
        xtext_decode(address).filter(|_| address.bytes().all(|o| o.is_ascii_graphic()))
    };
    let address = decoded.filter(|text| !text.is_empty())?;
    Some((kind, address))
}

/// Decodes utf-8-addr-xtext, utf-8-addr-unitext or a mixture of them (RFC 6533 §3): `\x{HEX}` is a character; control
/// characters are refused.
fn utf8_decode(text: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (c, length) = match c {
            '\\' => embedded_character(rest)?,
            '!'..='~' => (c, 1),
            c if !c.is_ascii() => (c, c.len_utf8()),
            _ => return None,
        };
        if matches!(c, '+' | '=') && length == 1 || c.is_control() {
            return None;
        }
        decoded.push(c);
        rest = rest.get(length..)?;
    }
    Some(decoded)
}

/// The character of a `\x{HEX}` at the start of `text`, and its length in octets.
fn embedded_character(text: &str) -> Option<(char, usize)> {
    let (digits, _) = text.strip_prefix("\\x{")?.split_once('}')?;
    let upper = |o: u8| matches!(o, b'0'..=b'9' | b'A'..=b'F');
    if !(2..=6).contains(&digits.len()) || !digits.bytes().all(upper) {
        return None;
    }
    let c = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
    Some((c, digits.len() + "\\x{}".len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(text: &str) -> Result<MailParams, Reply> {
        MailParams::parse(&mut Cursor::new(text))
    }

    fn rcpt(text: &str) -> Result<RcptParams, Reply> {
        RcptParams::parse(&mut Cursor::new(text))
    }

    /// R036, R082, R152, R153, R154, R170, R180, R183, A3.
    #[test]
    fn mail_parameters() {
        assert_eq!(
            mail(" size=10  BODY=8bitmime SMTPUTF8\tRET=hdrs ENVID=QQ+2B314"),
            Ok(MailParams {
                size: Some(10),
                body: Some(BodyType::EightBit),
                smtputf8: true,
                ret: Some(Ret::Headers),
                envid: Some("QQ+2B314".into()),
                ..MailParams::default()
            })
        );
        for huge in ["18446744073709551616", "99999999999999999999"] {
            let size = mail(&format!(" SIZE={huge}")).map(|params| params.size);
            assert_eq!(size, Ok(Some(u64::MAX)), "{huge}");
        }
        let long = format!(" ENVID={}", "x".repeat(101));
        for bad in [
            " SIZE=",
            " SIZE=-1",
            " SIZE=100000000000000000000",
            " SIZE=1 SIZE=2",
            " BODY=x",
            " BODY",
            " SMTPUTF8=1",
            " SMTPUTF8 SMTPUTF8",
            " AUTH=",
            " AUTH=++",
            " AUTH=x+0Ay",
            " REQUIRETLS=1",
            "x",
            " RET",
            " RET=ALL",
            " RET=FULL RET=FULL",
            " ENVID=",
            " ENVID=x+0D+0AX-Evil:+201",
            " ENVID=a=b",
            " ENVID=a+b",
            " ENVID=\u{e9}",
            " ENVID=1 ENVID=1",
            &long,
        ] {
            assert_eq!(mail(bad), Err(reply::BAD_PARAMETER), "{bad}");
        }
        for unknown in [" X=1", " NOTIFY=NEVER", " =1"] {
            assert_eq!(mail(unknown), Err(reply::UNKNOWN_PARAMETER), "{unknown}");
        }
    }

    /// R150, R151, R154, R155, RFC 6533 §3.
    #[test]
    fn rcpt_parameters() {
        for (text, spelled) in [
            ("NEVER", "NEVER"),
            ("delay,success", "SUCCESS,DELAY"),
            ("SUCCESS,FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"),
        ] {
            let notify = rcpt(&format!(" NOTIFY={text}")).ok().and_then(|p| p.notify);
            assert_eq!(notify.map(|n| n.to_string()).as_deref(), Some(spelled));
        }
        for orcpt in [
            "rfc822;a+2Bb@c",
            "utf-8;jos\\x{E9}@x",
            "utf-8;jos\u{e9}@x",
            "x400;/a+3Db/",
        ] {
            let kept = rcpt(&format!(" ORCPT={orcpt} NOTIFY=NEVER"))
                .ok()
                .and_then(|p| p.orcpt);
            assert_eq!(kept.as_deref(), Some(orcpt));
        }
        let long = format!(" ORCPT=rfc822;{}", "x".repeat(500));
        for bad in [
            " NOTIFY",
            " NOTIFY=",
            " NOTIFY=NEVER,SUCCESS",
            " NOTIFY=SUCCESS,",
            " NOTIFY=x",
            " NOTIFY=NEVER NOTIFY=NEVER",
            " ORCPT=a@b",
            " ORCPT=;a@b",
            " ORCPT=rfc822;",
            " ORCPT=rfc822;x+0Ax",
            " ORCPT=rfc822;a+00b",
            " ORCPT=rfc822;jos\u{e9}",
            " ORCPT=utf-8;\\x{0A}",
            " ORCPT=utf-8;a+b",
            " ORCPT=utf-8;\\x{D800}",
            " ORCPT=utf-8;\\x{e9}",
            " ORCPT=rfc822;a ORCPT=rfc822;a",
            &long,
        ] {
            assert_eq!(rcpt(bad), Err(reply::BAD_PARAMETER), "{bad}");
        }
        assert_eq!(rcpt(" SIZE=1"), Err(reply::UNKNOWN_PARAMETER));
    }
}
