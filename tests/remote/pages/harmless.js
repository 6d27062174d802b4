// What stored text would have made of a page, if any of it had become markup.
() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const active = "script, img, iframe, object, embed, video, audio, svg, math, base, style, meta[http-equiv]";
  const attributes = all("*").flatMap((e) => [...e.attributes]).map((a) => a.name);
  return {
    title: document.title,
    foreign: all(active).map((e) => e.outerHTML),
    handlers: attributes.filter((name) => name.startsWith("on") || ["style", "srcdoc", "formaction"].includes(name)),
    links: all("a").map((e) => e.getAttribute("href")),
    forms: all("form").map((e) => e.getAttribute("action")),
    quotes: all("pre, .said, .value").filter((e) => e.childElementCount).map((e) => e.outerHTML),
  };
}
