// What scrolls within itself can be scrolled by keys: tables and formulas that are too wide.
(() => {
  const mark = () => {
    for (const one of document.querySelectorAll(".bd-article table, mjx-container[display]")) {
      if (one.scrollWidth > one.clientWidth) one.tabIndex = 0;
      else one.removeAttribute("tabindex");
    }
  };
  addEventListener("load", () => {
    mark();
    window.MathJax?.startup?.promise?.then(mark);
  });
  addEventListener("resize", mark);
})();
