"""Tests of `check.py`: `python3 -m unittest` in this folder."""

import unittest

from check import findings


def words(name, text):
    """Returns the words that are found, without line and replacement."""
    return [found for _, found, _ in findings(name, text)]


class Pages(unittest.TestCase):
    def test_words_and_phrases_are_found_with_their_line(self):
        text = "Fine.\nWhoever is told\nmends it; what is set\naside goes by a name.\n"
        self.assertEqual([(line, found) for line, found, _ in findings("a.md", text)],
                         [(2, "Whoever"), (2, "told"), (3, "mends"), (3, "set aside"), (4, "goes by")])

    def test_code_within_a_line_and_queries_are_skipped(self):
        text = "`told` and `` a `told` b ``\n```sql\nSELECT told;\n```\n"
        self.assertEqual(words("a.md", text), [])
        self.assertEqual(words("a.md", "```toml\n# told\n```\n"), ["told"])

    def test_ordinary_meanings_are_fine(self):
        text = "A place, a way to look at a recent slot; there is none; dead\nletters; 20 digits and letters; letters, digits and dots."
        self.assertEqual(words("a.md", text), [])
        self.assertEqual(words("a.md", "The letters are kept."), ["letters"])


class Rust(unittest.TestCase):
    def test_names_are_split_into_words(self):
        self.assertEqual(words("a.rs", "struct LaneWorker; fn sink_lanes() {} const DEAD_LETTERS: u8 = letters;"),
                         ["LaneWorker", "letters", "sink_lanes"])

    def test_types_are_found_as_whole_names(self):
        self.assertEqual(words("a.rs", "struct Place; struct InPlace; let place = 1;"), ["Place"])

    def test_comments_and_strings_are_prose(self):
        text = '/// Gives the name.\n/// It is what is set\n/// aside; `told`.\nlet a = "is none"; // dead\n// letters\nlet b = r#"nobody"#;\n'
        self.assertEqual(words("a.rs", text), ["gives", "set aside", "is none", "nobody"])

    def test_file_names_count(self):
        self.assertEqual(words("src/dice.rs", ""), ["file name dice"])

    def test_a_quote_within_a_character_or_a_lifetime_starts_no_string(self):
        self.assertEqual(words("a.rs", "let a = '\"'; fn f<'a>(lane: &'a str) {} let b = '\\''; let told = 1;"), ["lane", "told"])


if __name__ == "__main__":
    unittest.main()
