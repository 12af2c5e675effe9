//! The table of the usual causes, in the order in which they are tried. A new cause needs a row here, and a case in
//! `tests/program/cli_verify`.

use super::attempt::{Attempt, Scheme, Stage};
use super::{Cause, body, member_order, numbers, secret, token};
use dt_verify::Secret;

/// A change that may have been made to a request or a secret.
pub struct Suspect {
    /// The stable name of the cause.
    code: &'static str,
    /// The reversal of the change.
    change: Change,
    /// The description of the cause and the remedy. `{secret}` stands for the secret's label, `{header}` for the header's name.
    text: &'static str,
}

/// A function that returns candidates for the bytes before the change; empty if the change is not possible.
type Reverse = fn(&[u8]) -> Vec<Vec<u8>>;

/// The part of the request that a change affects.
enum Change {
    /// The value of the signature header.
    Token(Reverse),
    /// A secret. Each secret is tried in turn, alone.
    Secret(Reverse),
    /// The body of the request.
    Body(Reverse),
    /// Any part of the request. The reversal is tried in order to pass this stage.
    Any(Stage, fn(&Attempt, Scheme) -> Vec<Attempt>),
}

impl Suspect {
    /// Returns the stage that the request may pass after the reversal.
    pub const fn stage(&self) -> Stage {
        match self.change {
            Change::Token(_) | Change::Secret(_) => Stage::Token,
            Change::Body(_) => Stage::Body,
            Change::Any(stage, _) => stage,
        }
    }

    /// Returns the attempts with the change reversed, each with the cause that is proven if the attempt passes.
    pub fn reverse(&self, attempt: &Attempt, scheme: Scheme) -> Vec<(Cause, Attempt)> {
        let cause = |label: &str| Cause {
            code: self.code,
            text: self.text.replace("{secret}", label).replace("{header}", scheme.header()),
        };
        let changed: Vec<(&str, Attempt)> = match self.change {
            Change::Token(reverse) => {
                let token = attempt.token(scheme).unwrap_or_default();
                let values = reverse(token).into_iter().filter(|value| value != token);
                values.map(|value| ("", attempt.with_token(scheme, value))).collect()
            }
            Change::Secret(reverse) if scheme == Scheme::Secret => {
                let candidates = attempt.secrets.iter().flat_map(|(label, secret)| {
                    let values =
                        reverse(secret.expose()).into_iter().filter(|value| *value != secret.expose());
                    let secrets = values.filter_map(|value| Secret::new(value).ok());
                    secrets.map(move |secret| (&**label, attempt.with_secret(label, secret)))
                });
                candidates.collect()
            }
            Change::Secret(_) => Vec::new(),
            Change::Body(reverse) => {
                let bodies = reverse(&attempt.body).into_iter().filter(|body| *body != attempt.body);
                bodies.map(|body| ("", attempt.with_body(body))).collect()
            }
            Change::Any(_, reverse) => {
                reverse(attempt, scheme).into_iter().map(|changed| ("", changed)).collect()
            }
        };
        changed.into_iter().map(|(label, changed)| (cause(label), changed)).collect()
    }
}

const fn row(code: &'static str, change: Change, text: &'static str) -> Suspect {
    Suspect { code, change, text }
}

use Change::{Any, Body, Secret as Key, Token};

#[rustfmt::skip]
pub const SUSPECTS: &[Suspect] = &[
    // The header.
    row("token_in_quotes", Token(token::unquoted),
        "The token is in quotes. Remove them."),
    row("token_has_header_name", Token(token::without_name),
        "The name of a header is before the token. Use only the value of {header}."),
    row("token_has_bearer", Token(token::without_bearer),
        "\"Bearer\" is before the token. DT sends only the token: look for a proxy or a test tool that adds it."),
    row("token_has_white_space", Token(token::without_white_space),
        "There is white space inside the token, as when it is copied from several lines. Remove it."),
    row("token_has_padding", Token(token::without_padding),
        "The parts of the token are padded with `=`, which JWTs are not: something has encoded the token once more."),
    row("header_renamed", Any(Stage::Token, token::from_renamed_header),
        "The token came in a header that is not named {header}: a proxy or framework changes names of headers, as \
         CGI and WSGI do. Configure it to keep them."),
    row("header_repeated", Any(Stage::Token, token::from_repeated_header),
        "{header} was sent more than once; one of its values is valid. Look for a proxy that adds headers instead of \
         replacing them."),
    // The secret.
    row("secret_has_white_space", Key(secret::trimmed),
        "The secret \"{secret}\" matches without the white space around it. Remove the white space or newline from the \
         variable or file."),
    row("secret_in_quotes", Key(secret::unquoted),
        "The secret \"{secret}\" matches without the quotes around it. Remove them from the variable or file: \
         container and service managers often keep quotes."),
    row("secret_has_name", Key(secret::without_name),
        "The secret \"{secret}\" matches without the `NAME=` before it: the file is a file of settings. Put only the \
         secret into the file, or load the settings and use --secret-env."),
    row("secret_has_bom", Key(secret::without_bom),
        "The secret \"{secret}\" matches as UTF-8 without a byte order mark. Some editors and shells on Windows save \
         text with one, or as UTF-16: save it as UTF-8 without it."),
    row("secret_lacks_newline", Key(secret::with_line_end),
        "The secret \"{secret}\" matches with a newline after it, so the secret in DT Studio has one. Enter it there \
         again without the newline."),
    row("secret_is_base64", Key(secret::from_base64),
        "The secret \"{secret}\" is the base64 encoding of the one that matches. Decode it, as it was entered in DT \
         Studio."),
    row("secret_was_decoded", Key(secret::to_base64),
        "The secret \"{secret}\" is decoded, but the one that matches is base64 text. DT uses the text as it was \
         entered: do not decode it."),
    row("secret_is_hex", Key(secret::from_hex),
        "The secret \"{secret}\" is the hexadecimal encoding of the one that matches. Decode it."),
    row("other_secret", Any(Stage::Token, secret::spare),
        "The secret in DT_SIGNATURE_SECRET matches, but --secret-env or --secret-file selects others."),
    // The body.
    row("body_has_newline", Body(body::without_line_end),
        "The body ends with a newline that was not signed. Editors and `echo` add one: save the received bytes, \
         or use `printf %s`."),
    row("body_lacks_newline", Body(body::with_line_end),
        "The body was signed with a newline at its end, which is missing: a proxy or framework trims bodies."),
    row("body_has_bom", Body(body::without_bom),
        "A byte order mark was added before the body. Save it as UTF-8 without one."),
    row("body_has_crlf", Body(body::to_lf),
        "The line ends of the body were LF when it was signed and are CRLF now: a tool treats it as a text file, \
         such as git, FTP or an editor on Windows."),
    row("body_has_lf", Body(body::to_crlf),
        "The line ends of the body were CRLF when it was signed and are LF now: a tool treats it as a text file, \
         such as git or an editor."),
    row("body_is_compressed", Body(body::unpacked),
        "The body is compressed (gzip or deflate); the decompressed body was signed. Configure the proxy not to \
         compress it, or decompress it before it is verified."),
    row("body_is_base64", Body(body::from_base64),
        "The body is in base64; the decoded body was signed. API gateways encode bodies, and set `isBase64Encoded`: \
         decode it before it is verified."),
    row("body_is_wrapped", Body(body::unwrapped),
        "The body is a string in other JSON, as in an event of AWS Lambda. Verify the text of the string."),
    row("body_is_chunked", Body(body::unchunked),
        "The body still has its chunk sizes (Transfer-Encoding: chunked). Decode the chunks before it is verified."),
    row("body_is_utf16", Body(body::from_utf16),
        "The body is in UTF-16; it was signed as UTF-8. `>` of Windows PowerShell writes UTF-16: save the received \
         bytes."),
    row("body_reformatted", Body(body::compact),
        "The body is the signed JSON with other white space: something pretty-printed or re-serialised it. Verify the \
         received bytes, before anything parses them."),
    row("body_reformatted", Body(body::spaced),
        "The body is the signed JSON without its spaces after `,` and `:`: something re-serialised it. Verify the \
         received bytes, before anything parses them."),
    row("body_reescaped", Body(body::unescaped),
        "Characters of the signed body have become escapes such as \\u00f8: something re-serialised the JSON. Verify \
         the received bytes, before anything parses them."),
    row("body_reescaped", Body(body::escaped),
        "Escapes of the signed body such as \\u00f8 have become characters: something re-serialised the JSON. Verify \
         the received bytes, before anything parses them."),
    row("body_reserialised", Body(member_order::as_dt_orders),
        "The body is the signed JSON with its members in another order: something re-serialised it, most likely from a \
         map with sorted keys. Verify the received bytes, before anything parses them."),
    row("body_numbers_respelt", Any(Stage::Body, numbers::respelt),
        "The body is the signed JSON with other spellings of its numbers, such as 1 for 1.0 or 1000 for 1e3: something \
         re-serialised it. Verify the received bytes, before anything parses them."),
    row("body_reencoded", Body(body::recoded),
        "The body is in another character set than when it was signed: something decoded it as Latin-1. Read bodies as \
         bytes, not as text."),
    row("body_beyond_content_length", Any(Stage::Body, body::whole),
        "The signed body is longer than Content-Length: the dump was edited, or the header is of another request."),
];
