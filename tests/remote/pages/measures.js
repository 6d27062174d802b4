// What can be measured of a page for people: contrast, size of targets, names, landmarks, headings.
() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const told = (e) => e.outerHTML.slice(0, 90);
  const seen = (e) => e.checkVisibility() && getComputedStyle(e).clipPath === "none" && e.getClientRects().length > 0;
  const colour = (text) => text.match(/[0-9.]+/g).map(Number);
  // Source: WCAG 2.2, relative luminance and contrast ratio.
  const channel = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const contrast = (e) => {
    const [a, b] = [luminance(colour(getComputedStyle(e).color)), luminance(ground(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.matches("input, select");
  const texts = all("body *").filter((e) => seen(e) && hasText(e));
  const targets = all("a, button, input:not([type=hidden]), select, summary").filter(
    (e) => seen(e) && !e.matches(".skip, .empty p > a:not(.button)"), // within a sentence, or shown with the focus
  );
  return {
    texts: texts.length,
    contrasts: texts.filter((e) => contrast(e) < 4.5).map((e) => [contrast(e), told(e)]),
    targets: targets.filter((e) => e.getBoundingClientRect().height < 43.9).map(told),
    sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    unlabelled: all("input:not([type=hidden]), select").filter((e) => !e.labels.length).map(told),
    nameless: all("a, button, summary").filter((e) => !e.innerText.trim()).map(told),
    unnamed: all("nav, section, aside, article")
      .filter((e) => !e.getAttribute("aria-label") && !document.getElementById(e.getAttribute("aria-labelledby")))
      .map(told),
    landmarks: ["header", "main"].map((name) => all(`body > ${name}`).length),
    heads: all("h1, h2, h3, h4, h5, h6").map((e) => Number(e.tagName[1])),
    ids: all("[id]").map((e) => e.id),
    title: document.title,
    language: document.documentElement.lang,
  };
}
