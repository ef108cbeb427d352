"""Charts are well-formed and leave out what is not a number."""

from xml.etree import ElementTree

from engine.learner.charts import line_chart

SPACE = "{http://www.w3.org/2000/svg}"


def test_chart_is_xml_with_a_point_a_value() -> None:
    text = line_chart(
        [("ours", [0.0, 0.5, 1.0], [0.1, float("nan"), 0.9]), ("theirs", [0.0, 1.0], [0.2, 0.8])],
        title="Calibration",
        x_label="predicted",
        y_label="right",
        x_range=(0, 1),
        y_range=(0, 1),
        x_ticks=[(0.0, "0"), (1.0, "1")],
        diagonal=True,
    )
    root = ElementTree.fromstring(text)
    points = root.findall(f"{SPACE}circle")
    assert len(points) == 4
    heights = [float(point.attrib["cy"]) for point in points]
    assert heights[0] > heights[1]
    assert {"ours", "theirs", "Calibration"} <= {node.text for node in root.iter(f"{SPACE}text")}
