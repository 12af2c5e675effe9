//! The table of the usual suspects, in the order in which they are tried. A new one is a row, and a case in
//! `tests/cli_verify`.

use super::attempt::{Attempt, Scheme, Stage};
use super::{Cause, body, member_order, numbers, secret, token};
use dt_verify::Secret;

/// Something that may have been done to a request or a secret.
pub(super) struct Suspect {
    /// The stable name.
    code: &'static str,
    /// How it is undone.
    change: Change,
    /// What it is and what helps. `{secret}` is the secret's label, `{header}` the header's name.
    text: &'static str,
}

/// Makes candidates for what the bytes were before; none where the suspect cannot be it.
type Undo = fn(&[u8]) -> Vec<Vec<u8>>;

/// What is changed.
enum Change {
    /// The value of the signature header.
    Token(Undo),
    /// Each of the secrets.
    Secret(Undo),
    /// The body.
    Body(Undo),
    /// Anything, to get past that stage.
    Any(Stage, fn(&Attempt, Scheme) -> Vec<Attempt>),
}

impl Suspect {
    /// The stage that this suspect may help past.
    pub(super) const fn stage(&self) -> Stage {
        match self.change {
            Change::Token(_) | Change::Secret(_) => Stage::Token,
            Change::Body(_) => Stage::Body,
            Change::Any(stage, _) => stage,
        }
    }

    /// The attempts with this suspect undone, each with the cause that it would prove.
    pub(super) fn undo(&self, attempt: &Attempt, scheme: Scheme) -> Vec<(Cause, Attempt)> {
        let cause = |label: &str| Cause {
            code: self.code,
            text: self.text.replace("{secret}", label).replace("{header}", scheme.header()),
        };
        let changed: Vec<(&str, Attempt)> = match self.change {
            Change::Token(undo) => {
                let token = attempt.token(scheme).unwrap_or_default();
                let values = undo(token).into_iter().filter(|value| value != token);
                values.map(|value| ("", attempt.with_token(scheme, value))).collect()
            }
            Change::Secret(undo) if scheme == Scheme::Secret => {
                let candidates = attempt.secrets.iter().flat_map(|(label, secret)| {
                    let values = undo(secret.expose()).into_iter().filter(|value| *value != secret.expose());
                    let secrets = values.filter_map(|value| Secret::new(value).ok());
                    secrets.map(move |secret| (&**label, attempt.with_secret(label, secret)))
                });
                candidates.collect()
            }
            Change::Secret(_) => Vec::new(),
            Change::Body(undo) => {
                let bodies = undo(&attempt.body).into_iter().filter(|body| *body != attempt.body);
                bodies.map(|body| ("", attempt.with_body(body))).collect()
            }
            Change::Any(_, undo) => undo(attempt, scheme).into_iter().map(|changed| ("", changed)).collect(),
        };
        changed.into_iter().map(|(label, changed)| (cause(label), changed)).collect()
    }
}

const fn row(code: &'static str, change: Change, text: &'static str) -> Suspect {
    Suspect { code, change, text }
}

use Change::{Any, Body, Secret as Key, Token};

#[rustfmt::skip]
pub(super) const SUSPECTS: &[Suspect] = &[
    // The header.
    row("token_in_quotes", Token(token::unquoted),
        "The token is in quotes. Give it without them."),
    row("token_has_header_name", Token(token::without_name),
        "The name of a header stands before the token. Give the value of {header} alone."),
    row("token_has_bearer", Token(token::without_bearer),
        "\"Bearer\" stands before the token. DT sends the token alone: look for a proxy or a test tool that adds it."),
    row("token_has_white_space", Token(token::without_white_space),
        "There is white space inside the token, as when it is copied from several lines. It has to be one piece."),
    row("token_has_padding", Token(token::without_padding),
        "The parts of the token are padded with `=`, which JWTs are not: something has encoded it again."),
    row("header_renamed", Any(Stage::Token, token::from_renamed_header),
        "The token came in a header that is not named {header}: something on the way changes names of headers, as \
         CGI and WSGI do. Configure it to keep them."),
    row("header_repeated", Any(Stage::Token, token::from_repeated_header),
        "{header} was sent more than once; one of its values holds. Look for a proxy that adds headers instead of \
         replacing them."),
    // The secret.
    row("secret_has_white_space", Key(secret::trimmed),
        "The secret \"{secret}\" matches without the white space around it. Remove that, or the newline, from where \
         the secret is kept."),
    row("secret_in_quotes", Key(secret::unquoted),
        "The secret \"{secret}\" matches without the quotes around it. Remove them from where the secret is kept: \
         container and service managers often pass quotes on."),
    row("secret_has_name", Key(secret::without_name),
        "The secret \"{secret}\" matches without the `NAME=` before it: that is a file of settings. Put only the \
         secret into the file, or load the settings and use --secret-env."),
    row("secret_has_bom", Key(secret::without_bom),
        "The secret \"{secret}\" matches once it is plain UTF-8 without a byte order mark. Some editors and shells on \
         Windows save text with one, or as UTF-16: save it as UTF-8."),
    row("secret_lacks_newline", Key(secret::with_line_end),
        "The secret \"{secret}\" matches with a newline after it, so the other side holds one. Enter the secret \
         again there, without it."),
    row("secret_is_base64", Key(secret::from_base64),
        "The secret \"{secret}\" is the base64 form of the one that matches. Give it decoded, as it was entered in DT \
         Studio."),
    row("secret_was_decoded", Key(secret::to_base64),
        "The secret \"{secret}\" is the decoded form of the one that matches, which is base64. DT uses the text as it \
         was entered: do not decode it."),
    row("secret_is_hex", Key(secret::from_hex),
        "The secret \"{secret}\" is the hexadecimal form of the one that matches. Give it decoded."),
    row("other_secret", Any(Stage::Token, secret::spare),
        "The secret in DT_SIGNATURE_SECRET matches, but --secret-env or --secret-file said to use others."),
    // The body.
    row("body_has_newline", Body(body::without_line_end),
        "The body ends with a newline that was not signed. Editors and `echo` add one: save the bytes as they came, \
         or use `printf %s`."),
    row("body_lacks_newline", Body(body::with_line_end),
        "The body was signed with a newline at its end, which is gone: something trims bodies."),
    row("body_has_bom", Body(body::without_bom),
        "A byte order mark was put before the body. Save it as UTF-8 without one."),
    row("body_has_crlf", Body(body::to_lf),
        "The line ends of the body were LF when it was signed and are CRLF now: something treats it as a text file, \
         such as git, FTP or an editor on Windows."),
    row("body_has_lf", Body(body::to_crlf),
        "The line ends of the body were CRLF when it was signed and are LF now: something treats it as a text file, \
         such as git or an editor."),
    row("body_is_compressed", Body(body::unpacked),
        "The body is compressed (gzip or deflate); unpacked it is what was signed. Have the proxy pass it on \
         unpacked, or unpack it before it is verified."),
    row("body_is_base64", Body(body::from_base64),
        "The body is in base64; decoded it is what was signed. API gateways do that, and say so with \
         `isBase64Encoded`: decode it before it is verified."),
    row("body_is_wrapped", Body(body::unwrapped),
        "The body is a member of, or a string in, other JSON, as in an event of AWS Lambda. Verify the text inside."),
    row("body_is_chunked", Body(body::unchunked),
        "The body still has the marks of its chunks (Transfer-Encoding: chunked). Verify it without them."),
    row("body_is_utf16", Body(body::from_utf16),
        "The body is in UTF-16; as UTF-8 it is what was signed. `>` of Windows PowerShell writes that: save the bytes \
         as they came."),
    row("body_reformatted", Body(body::compact),
        "The body is the JSON that was signed, with other white space: something pretty-printed it, or parsed it and \
         wrote it again. Verify the bytes as they came, before anything parses them."),
    row("body_reformatted", Body(body::spaced),
        "The body is the JSON that was signed, without its spaces after `,` and `:`: something parsed it and wrote it \
         again. Verify the bytes as they came, before anything parses them."),
    row("body_reescaped", Body(body::unescaped),
        "Characters of the body that were signed as they are have become escapes such as \\u00f8: something parsed \
         the JSON and wrote it again. Verify the bytes as they came, before anything parses them."),
    row("body_reescaped", Body(body::escaped),
        "Escapes such as \\u00f8 that were signed have become characters: something parsed the JSON and wrote it \
         again. Verify the bytes as they came, before anything parses them."),
    row("body_reserialised", Body(member_order::as_dt_orders),
        "The body is the JSON that was signed, with its members in another order: something parsed it and wrote it again, \
         most likely from a map with sorted keys. Verify the bytes as they came, before anything parses them."),
    row("body_numbers_respelt", Any(Stage::Body, numbers::respelt),
        "The body is the JSON that was signed, with other spellings of its numbers, such as 1 for 1.0 or 1000 for 1e3: \
         something parsed it and wrote it again. Verify the bytes as they came, before anything parses them."),
    row("body_reencoded", Body(body::recoded),
        "The body is in another character set than when it was signed: something took it for Latin-1. Take bodies as \
         bytes, not as text."),
    row("body_beyond_content_length", Any(Stage::Body, body::whole),
        "What was signed is longer than Content-Length says: the dump was edited, or the header is another request's."),
];
