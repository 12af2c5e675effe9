"""Tests of what needs no load: `python3 -m unittest discover -s benches/compare`. The standard library is enough."""

import base64
import csv
import hashlib
import hmac
import io
import itertools
import json
import os
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import curves  # noqa: E402
import load  # noqa: E402
import machine  # noqa: E402
import measure  # noqa: E402
import process  # noqa: E402
import receiver  # noqa: E402
import report  # noqa: E402
import subject  # noqa: E402
import summary  # noqa: E402
import traffic  # noqa: E402

SAID = (
    "Running 1s test\n"
    '{"requests":110,"duration_us":2000000,"asked":120,"status":10,"connect":0,"read":1,"write":0,"timeout":2,'
    '"p50":5,"p90":9,"p99":20,"p99.9":30,"max":31}\n'
)


class Summary(unittest.TestCase):
    def test_percentiles_are_values_that_were_measured(self):
        values = list(range(1, 101))
        self.assertEqual([summary.percentile(values, p) for p in (0, 1, 50, 99, 99.9, 100)], [1, 1, 50, 99, 100, 100])
        self.assertEqual(summary.percentile([7], 99), 7)

    def test_medians(self):
        self.assertEqual(summary.median([3, 1, 2]), 2)
        self.assertEqual(summary.median([4, 1, 2, 3]), 2.5)

    def test_a_column_that_no_run_has_is_left_out(self):
        rows = [{"a": 3, "b": None}, {"a": 1}, {"a": 8}]
        self.assertEqual(summary.over_runs(rows, ["a", "b"]), {"a": (3, 1, 8)})


class Wrk(unittest.TestCase):
    def test_what_it_says_is_read(self):
        row = load.parse(SAID)
        self.assertEqual((row["good"], row["bad"], row["sent"], row["socket_errors"]), (100, 10, 120, 3))
        self.assertEqual((row["events_per_second"], row["requests_per_second"]), (50.0, 55.0))
        self.assertEqual([row[name] for name in load.PERCENTILES], [5, 9, 20, 30, 31])

    def test_without_figures_it_has_failed(self):
        for output in ("", "Running 1s test\n", SAID + "unable to connect\n"):
            with self.assertRaises(load.LoadFailed):
                load.parse(output)


class Requests(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "a.requests"

    def records(self, made):
        data = made.path.read_bytes()
        while data:
            length = int(data[:8])
            yield data[8 : 8 + length]
            data = data[8 + length :]

    def test_each_has_its_id_its_size_and_a_signature_that_holds(self):
        made = traffic.of_our_own(self.path, 50, size=1000)
        requests, ids = list(self.records(made)), made.ids(100)
        self.assertEqual((len(requests), made.count(), len(set(ids))), (50, 50, 50))
        self.assertEqual(requests[0], made.first())
        for request, event_id in zip(requests, ids, strict=True):
            head, _, body = request.partition(b"\r\n\r\n")
            self.assertEqual(len(body), 1000)
            self.assertEqual(json.loads(body)["event"]["eventId"].encode(), event_id)
            self.assertIn(b"Content-Length: 1000", head)
            self.assertTrue(self.holds(head, body, traffic.SECRET))
            self.assertFalse(self.holds(*subject.forge(request).split(b"\r\n\r\n", 1), traffic.SECRET))

    def holds(self, head, body, secret):
        token = next(line for line in head.split(b"\r\n") if line.startswith(b"X-Dt-Signature: ")).split()[1]
        signed, _, signature = token.rpartition(b".")
        mac = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        claims = signed.split(b".")[1]
        claims = json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))
        is_signed = base64.urlsafe_b64encode(mac).rstrip(b"=") == signature
        return is_signed and claims["checksum_sha256"] == hashlib.sha256(body).hexdigest()

    def test_of_the_forged_none_is_among_the_ids_and_the_first_is_not_forged(self):
        made = traffic.of_our_own(self.path, 1000, forged=0.1)
        self.assertEqual(made.ids(1000).count(b"-" * 20), 99)
        self.assertNotEqual(made.ids(1)[0], b"-" * 20)

    def test_connectors_have_paths_and_secrets_of_their_own(self):
        made = traffic.of_our_own(self.path, 4, secrets=("a" * 32, "b" * 32), targets=("/c1", "/c2"))
        for number, request in enumerate(self.records(made)):
            head, _, body = request.partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"POST /c%d HTTP/1.1\r\n" % (number % 2 + 1)))
            self.assertTrue(self.holds(head, body, "ab"[number % 2] * 32))

    def test_an_old_or_short_file_is_not_taken_again(self):
        made = traffic.of_our_own(self.path, 10)
        self.assertTrue(made.is_fresh(10))
        self.assertFalse(made.is_fresh(11))
        os.utime(made.path, (0, 0))
        self.assertFalse(made.is_fresh(10))


class Ledger(unittest.TestCase):
    SENT = [b"first", b"a", b"b", b"c", b"d"]

    def compare(self, arrived, good, connections=1):
        return receiver.compare(arrived, self.SENT, {"good": good}, "file", connections)

    def test_all_there(self):
        self.assertEqual(self.compare([b"first", b"a", b"b"], 2), 0)

    def test_what_was_under_way_may_be_there(self):
        self.assertEqual(self.compare([b"first", b"a", b"b", b"d"], 2), 0)

    def test_lost_ones_are_counted(self):
        self.assertEqual(self.compare([b"first", b"a"], 3), 2)

    def test_more_than_was_under_way_is_an_error(self):
        with self.assertRaisesRegex(receiver.LostCount, "only 2"):
            self.compare([b"first", b"a", b"b", b"c"], 1)

    def test_twice_is_an_error(self):
        with self.assertRaisesRegex(receiver.LostCount, "twice"):
            self.compare([b"first", b"a", b"a"], 2)

    def test_what_nobody_sent_is_an_error(self):
        with self.assertRaisesRegex(receiver.LostCount, "nobody has sent"):
            self.compare([b"first", b"z"], 1)


class Runs(unittest.TestCase):
    ROW = {"bad": 0, "socket_errors": 0, "lost": 0}

    def test_what_makes_a_run_fail(self):
        self.assertIsNone(measure.fault(self.ROW, False))
        self.assertIsNone(measure.fault({**self.ROW, "lost": None, "bad": 3}, True))
        for column in self.ROW:
            self.assertIn("2", measure.fault({**self.ROW, column: 2}, False))

    def test_a_subject_must_refuse_what_is_forged(self):
        class Trusting(subject.Subject):
            pass

        trusting = Trusting("trusting", "", "")
        asked, answers = subject.ask, iter((200, 200))
        self.addCleanup(setattr, measure, "ask", asked)
        measure.ask = lambda address, request: next(answers)
        with self.assertRaisesRegex(measure.WrongAnswer, "trusting"):
            measure.answer_as_they_should(trusting, b"x" * 20)


class Reports(unittest.TestCase):
    def row(self, name, run, **values):
        row = dict.fromkeys(measure.COLUMNS, 1000.0) | {"name": name, "run": run, "connections": 64, "failed": None}
        return row | values

    def test_csv_has_the_runs_and_what_they_come_to(self):
        rows = [self.row("bare", run, p50=run, lost=None) for run in (1, 2, 3)]
        medians = {"bare": summary.over_runs(rows, measure.COLUMNS)}
        text = io.StringIO()
        report.write_csv(text, rows, medians)
        lines = list(csv.DictReader(io.StringIO(text.getvalue())))
        self.assertEqual([line["run"] for line in lines], ["1", "2", "3", "median", "min", "max"])
        self.assertEqual([line["p50"] for line in lines], ["1", "2", "3", "2", "1", "3"])
        self.assertEqual({line["lost"] for line in lines}, {""})

    def test_times_have_three_digits(self):
        times = [report.time_of(value) for value in (7, 999, 1000, 12_345, 999_499, 1_234_567)]
        self.assertEqual(times, ["7 µs", "999 µs", "1 ms", "12.3 ms", "999 ms", "1.23 s"])

    def test_a_table(self):
        self.assertEqual(report.table(["", "n"], [["a", "1"]]), "|  | n |\n|---|---:|\n| a | 1 |")

    def test_one_lost_in_any_run_is_shown(self):
        rows = [self.row("x", run, lost=lost) for run, lost in enumerate((0, 0, 5), 1)]
        found = summary.over_runs(rows, measure.COLUMNS)
        line = report.line_of(subject.Subject("x", "X", ""), found, found)
        self.assertEqual((line[0], line[1], line[-1]), ("X", "1,000 (1.00)", "5"))

    def test_results_go_between_the_markers_only(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            page, out = folder / "page.md", folder / "out"
            out.mkdir()
            for name in ("results.md", "cpu.svg", "curve-sinks.svg"):
                (out / name).write_text("new\n")
            page.write_text("a\n<!-- results: begin -->\nold\n<!-- results: end -->\nb\n")
            for _ in range(2):
                report.into_docs(page, out, "results")
            expected = "a\n<!-- results: begin -->\n\nnew\n\n![cpu](page/cpu.svg)\n\n<!-- results: end -->\nb\n"
            self.assertEqual(page.read_text(), expected)
            self.assertEqual([path.name for path in (folder / "page").iterdir()], ["cpu.svg"])
            with self.assertRaises(SystemExit):
                report.into_docs(page, out, "curves")

    def test_growth_is_from_the_first_point_to_the_last(self):
        self.assertAlmostEqual(curves.growth([{"cpu_us": 50}, {"cpu_us": 99}, {"cpu_us": 55}]), 10)


class Processes(unittest.TestCase):
    def test_the_cpu_of_children_counts_also_once_they_have_ended(self):
        spin = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
        with tempfile.TemporaryDirectory() as folder:
            # No `exec`: right after one, the kernel has counted a page of the new program and no more.
            script = f"sh -c '{spin}'; echo done; sleep 600; :"
            one = process.Process(["sh", "-c", script], pathlib.Path(folder) / "log")
            try:
                one.wait_for(lambda: "done" in one.text() or None, "end of the child")
                self.assertGreater(one.cpu(), 0.02)
                self.assertGreater(one.peak(), 100_000)
            finally:
                one.stop()
            self.assertEqual(one.family(), [one.child.pid])

    def test_one_that_does_not_start_says_why(self):
        with tempfile.TemporaryDirectory() as folder:
            one = process.Process(["sh", "-c", "echo no luck; exit 1"], pathlib.Path(folder) / "log")
            with self.assertRaisesRegex(process.Died, "no address: no luck"):
                one.wait_for(lambda: None, "address", seconds=20)


class Machine(unittest.TestCase):
    def test_syncs_are_timed_and_leave_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            times = machine.sync_times(folder, count=3)
            self.assertEqual(len(times), 3)
            self.assertTrue(all(time > 0 for time in times))
            self.assertEqual(os.listdir(folder), [])

    def test_memory_is_no_disk(self):
        with self.assertRaisesRegex(SystemExit, "tmpfs"):
            machine.on_disk("/dev/shm")

    def test_ids_are_as_long_as_those_of_dt(self):
        ids = list(itertools.islice(traffic.event_ids(), 3))
        self.assertEqual([len(one) for one in ids], [20, 20, 20])
        self.assertEqual(len(set(ids)), 3)


if __name__ == "__main__":
    unittest.main()
