// What scrolls within itself can be scrolled by keys: tables and formulas that are too wide.
(() => {
  const kinds = ["table", "mjx-container[display]", "span.math"];
  const mark = () => {
    for (const one of document.querySelectorAll(kinds.map((kind) => `.bd-article ${kind}`).join())) {
      // A formula in the line scrolls on a phone alone.
      const scrolls = !one.matches("span") || getComputedStyle(one).overflowX !== "visible";
      if (scrolls && one.scrollWidth > one.clientWidth) one.tabIndex = 0;
      else one.removeAttribute("tabindex");
    }
  };
  addEventListener("load", () => {
    mark();
    window.MathJax?.startup?.promise?.then(mark);
  });
  addEventListener("resize", mark);
})();
