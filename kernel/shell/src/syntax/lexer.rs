//! Characters to tokens.

use alloc::string::String;
use alloc::vec::Vec;
use core::iter::Peekable;
use core::str::Chars;

use super::{Piece, SyntaxError, Word};

/// A word or an operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Word(Word),
    /// `;`, `&&`, `||`, `|`.
    Operator(&'static str),
    /// `>`, `>>`, `<` or `>&`, and the number directly before it.
    Redirect(Option<String>, &'static str),
}

/// The tokens of `line`.
pub(super) fn tokens(line: &str) -> Result<Vec<Token>, SyntaxError> {
    let mut lexer = Lexer {
        rest: line.chars().peekable(),
        tokens: Vec::new(),
        word: None,
    };
    while lexer.step()? {}
    lexer.end_word();
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    tokens: Vec<Token>,
    word: Option<Word>,
}

impl Lexer<'_> {
    /// Takes a character and what belongs to it. `false` at the end.
    fn step(&mut self) -> Result<bool, SyntaxError> {
        let Some(c) = self.rest.next() else {
            return Ok(false);
        };
        match c {
            ' ' | '\t' | '\n' | '\r' => self.end_word(),
            '#' if self.word.is_none() => return Ok(false),
            ';' => self.operator(";"),
            '|' if self.next_is('|') => self.operator("||"),
            '|' => self.operator("|"),
            '&' if self.next_is('&') => self.operator("&&"),
            '>' if self.next_is('>') => self.redirect(">>"),
            '>' if self.next_is('&') => self.redirect(">&"),
            '>' => self.redirect(">"),
            '<' => self.redirect("<"),
            '&' | '(' | ')' | '`' => return Err(SyntaxError::Unexpected(c.into())),
            '\'' => self.single_quoted()?,
            '"' => self.double_quoted()?,
            // At the very end it stands for itself.
            '\\' => {
                let c = self.rest.next().unwrap_or('\\');
                self.quoted(c);
            }
            '$' => self.dollar(false)?,
            _ => self.plain(c),
        }
        Ok(true)
    }

    fn next_is(&mut self, c: char) -> bool {
        self.rest.next_if_eq(&c).is_some()
    }

    fn end_word(&mut self) {
        self.tokens.extend(self.word.take().map(Token::Word));
    }

    fn operator(&mut self, operator: &'static str) {
        self.end_word();
        self.tokens.push(Token::Operator(operator));
    }

    fn redirect(&mut self, operator: &'static str) {
        let number = match self.word.as_deref() {
            Some([Piece::Plain(text)]) if text.bytes().all(|b| b.is_ascii_digit()) => {
                Some(text.clone())
            }
            _ => None,
        };
        if number.is_some() {
            self.word = None;
        }
        self.end_word();
        self.tokens.push(Token::Redirect(number, operator));
    }

    fn plain(&mut self, c: char) {
        let word = self.word.get_or_insert_default();
        match word.last_mut() {
            Some(Piece::Plain(text)) => text.push(c),
            _ => word.push(Piece::Plain(c.into())),
        }
    }

    fn quoted(&mut self, c: char) {
        if let Some(text) = self.quotes() {
            text.push(c);
        }
    }

    /// The quoted text that the word ends with, made if there is none.
    fn quotes(&mut self) -> Option<&mut String> {
        let word = self.word.get_or_insert_default();
        if !matches!(word.last(), Some(Piece::Quoted(_))) {
            word.push(Piece::Quoted(String::new()));
        }
        match word.last_mut() {
            Some(Piece::Quoted(text)) => Some(text),
            _ => None,
        }
    }

    fn single_quoted(&mut self) -> Result<(), SyntaxError> {
        self.quotes();
        loop {
            match self.rest.next() {
                None => return Err(SyntaxError::Unterminated),
                Some('\'') => return Ok(()),
                Some(c) => self.quoted(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<(), SyntaxError> {
        self.quotes();
        loop {
            match self.rest.next() {
                None => return Err(SyntaxError::Unterminated),
                Some('"') => return Ok(()),
                Some('$') => self.dollar(true)?,
                Some('`') => return Err(SyntaxError::Unexpected('`'.into())),
                Some('\\') => match self.rest.next() {
                    None => return Err(SyntaxError::Unterminated),
                    Some(c @ ('"' | '\\' | '$' | '`')) => self.quoted(c),
                    Some(c) => {
                        self.quoted('\\');
                        self.quoted(c);
                    }
                },
                Some(c) => self.quoted(c),
            }
        }
    }

    /// After a `$`. Before a character that starts no expansion it is itself.
    fn dollar(&mut self, in_quotes: bool) -> Result<(), SyntaxError> {
        if self.next_is('?') {
            self.word.get_or_insert_default().push(Piece::Status);
            return Ok(());
        }
        let quotes = |c: char| !in_quotes && (c == '\'' || c == '"');
        let starts = |c: char| c.is_ascii_alphanumeric() || "_({@*#$!-".contains(c) || quotes(c);
        match self.rest.peek() {
            Some(&c) if starts(c) => {
                let name = self.rest.clone();
                let name: String = name
                    .take_while(|&c| c.is_ascii_alphanumeric() || c == '_')
                    .collect();
                let mut text = String::from("$");
                if name.is_empty() {
                    text.push(c);
                }
                text.push_str(&name);
                Err(SyntaxError::NoExpansion(text))
            }
            _ if in_quotes => {
                self.quoted('$');
                Ok(())
            }
            _ => {
                self.plain('$');
                Ok(())
            }
        }
    }
}
