"""The report as people see it, in a real browser."""

import pytest
from planted_findings import make_findings, make_plan

from search.report import write_report

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def report(findings, storage_of_plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    return write_report(folder, findings, storage_of_plan).as_uri()


def _scroll(page):
    """To the end, screen by screen, as a reader does; plots are drawn when they come near."""
    page.wait_for_selector(".live .main-svg")
    for _ in range(60):
        page.mouse.wheel(0, 800)
        page.wait_for_timeout(30)
        if page.evaluate("scrollY + innerHeight >= document.body.scrollHeight - 2"):
            break
    plots = page.locator("figure:has(.plot)").count()
    _until(page, f"document.querySelectorAll('.plot:has(.main-svg)').length === {plots}")


def _until(page, condition):
    """Playwright's own waiting evaluates strings inside the page, which its policy forbids."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}")


def test_every_plot_is_drawn_and_takes_the_place_of_its_picture(page, report):
    page.goto(report)
    _scroll(page)
    count = page.locator("figure:has(.plot)").count()
    assert count == 9
    assert page.locator(".live .plot .main-svg >> nth=0").is_visible()
    assert page.locator("figure:has(.plot) img:visible").count() == 0


def test_the_answer_is_on_the_first_screen(page, report):
    page.goto(report)
    for said in ("Doubling costs accuracy: within 1,500", "What to use"):
        box = page.get_by_text(said).first.bounding_box()
        assert box["y"] + box["height"] <= 900


def test_hovering_names_the_schedule(page, report):
    page.goto(report)
    page.locator("#plot-confirmation").scroll_into_view_if_needed()
    page.wait_for_selector("#plot-confirmation .main-svg")
    page.locator("#plot-confirmation .scatterlayer .point").first.hover(force=True)
    page.wait_for_selector("#plot-confirmation .hovertext")
    assert "8-8-8" in page.locator("#plot-confirmation .hovertext").first.text_content()


def test_without_scripts_the_pictures_stay(chromium, report):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report)
    assert page.locator("figure img:visible").count() == 9
    context.close()


def test_on_paper_the_pictures_stay(page, report):
    page.goto(report)
    _scroll(page)
    page.emulate_media(media="print")
    assert page.locator("figure:has(.plot) img:visible").count() == 9
    assert page.locator(".plot:visible").count() == 0


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_but_what_scrolls_by_itself_is_wider_than_the_screen(page, report, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(report)
    _scroll(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_dark_screen_gets_dark_plots_at_once_and_when_it_turns(page, report):
    page.emulate_media(color_scheme="dark")
    page.goto(report)
    page.wait_for_selector("#plot-confirmation .main-svg")
    background = "getComputedStyle(document.querySelector('#plot-confirmation .main-svg')).backgroundColor"
    assert page.evaluate(background) == "rgb(21, 24, 28)"
    page.emulate_media(color_scheme="light")
    _until(page, f"{background} === 'rgb(255, 255, 255)'")


def test_what_scrolls_is_reached_by_the_keyboard(page, report):
    page.goto(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className").startswith("wide")


def test_a_question_full_of_markup_does_nothing(page, storage_of_plan, tmp_path):
    hostile = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
    report = write_report(tmp_path, make_findings(make_plan(question=hostile)), storage_of_plan).as_uri()
    page.goto(report)
    _scroll(page)
    assert page.title() == f"planted: {hostile}"
