"""Problems of a file, as they are told."""

from pointsman.cli.files.problems import InvalidFile, Problem


def test_each_problem_is_a_line_with_its_place() -> None:
    problems = [Problem(3, "url: must be given"), Problem(0, "no valid YAML")]
    assert str(InvalidFile("routes.yaml", problems)) == "routes.yaml:3: url: must be given\nroutes.yaml: no valid YAML"


def test_ends_of_lines_in_what_the_file_says_end_no_line() -> None:
    assert str(InvalidFile("a.yaml", [Problem(1, "k\n\n\u2028ey: unknown field")])) == "a.yaml:1: k ey: unknown field"
