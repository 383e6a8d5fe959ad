//! Tokens to commands.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::lexer::{Token, tokens};
use super::{Piece, Pipeline, RESERVED, Redirect, Simple, SyntaxError, Target, When, Word};

/// The pipelines of `line`, in order; none for a blank line or a comment.
pub(crate) fn parse(line: &str) -> Result<Vec<Pipeline>, SyntaxError> {
    let mut tokens = tokens(line)?.into_iter();
    let mut pipelines = Vec::new();
    let mut when = When::Always;
    let mut commands = Vec::new();
    let mut simple = Simple::default();
    // What came last wants a command after it.
    let mut wanting = false;
    while let Some(token) = tokens.next() {
        let operator = match token {
            Token::Word(word) => {
                if simple.words.is_empty() {
                    check_first(&word)?;
                }
                simple.words.push(word);
                continue;
            }
            Token::Redirect(number, operator) => {
                let to = tokens.next();
                simple.redirects.push(redirect(number, operator, to)?);
                continue;
            }
            Token::Operator(operator) => operator,
        };
        if simple.is_empty() {
            return Err(SyntaxError::Unexpected(operator.into()));
        }
        commands.push(core::mem::take(&mut simple));
        wanting = operator != ";";
        if operator == "|" {
            continue;
        }
        let commands = core::mem::take(&mut commands);
        pipelines.push(Pipeline { when, commands });
        when = match operator {
            "&&" => When::Success,
            "||" => When::Failure,
            _ => When::Always,
        };
    }
    if !simple.is_empty() {
        commands.push(simple);
        pipelines.push(Pipeline { when, commands });
    } else if wanting {
        return Err(SyntaxError::UnexpectedEnd);
    }
    Ok(pipelines)
}

/// Refuses a first word that is no command's name: before anything of the line has run.
fn check_first(word: &Word) -> Result<(), SyntaxError> {
    // Quoted, even in part, it is a name.
    let Some(Piece::Plain(text)) = word.first() else {
        return Ok(());
    };
    if word.len() == 1 && RESERVED.contains(&text.as_str()) {
        return Err(SyntaxError::Reserved(text.clone()));
    }
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match text.split_once('=') {
        Some((name, _)) if is_name(name.trim_end_matches('+')) => {
            let words: String = word.iter().map(Piece::to_string).collect();
            Err(SyntaxError::Assignment(words))
        }
        _ => Ok(()),
    }
}

impl Simple {
    fn is_empty(&self) -> bool {
        self.words.is_empty() && self.redirects.is_empty()
    }
}

fn redirect(
    number: Option<String>,
    operator: &str,
    to: Option<Token>,
) -> Result<Redirect, SyntaxError> {
    let word = match to {
        Some(Token::Word(word)) => word,
        None => return Err(SyntaxError::UnexpectedEnd),
        Some(Token::Operator(text) | Token::Redirect(_, text)) => {
            return Err(SyntaxError::Unexpected(text.into()));
        }
    };
    let input = operator == "<";
    let fd = match number.as_deref() {
        None => u8::from(!input),
        Some("0") if input => 0,
        Some("1") if !input => 1,
        Some("2") if !input => 2,
        Some(other) => return Err(SyntaxError::BadDescriptor(other.into())),
    };
    let target = match operator {
        "<" => Target::Input(word),
        ">&" => Target::Same(descriptor(&word)?),
        _ => Target::Output(word),
    };
    Ok(Redirect { fd, target })
}

fn descriptor(word: &Word) -> Result<u8, SyntaxError> {
    match word.as_slice() {
        [Piece::Plain(text)] if text == "1" => Ok(1),
        [Piece::Plain(text)] if text == "2" => Ok(2),
        other => Err(SyntaxError::BadDescriptor(
            other.iter().map(Piece::to_string).collect(),
        )),
    }
}

impl core::fmt::Display for Piece {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Plain(text) | Self::Quoted(text) => text,
            Self::Status => "$?",
        })
    }
}
