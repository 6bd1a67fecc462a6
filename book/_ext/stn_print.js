// Before a page is printed it is made ready for paper, and put back afterwards.
{
  const undo = [];

  function change(thing, name, value) {
    const was = thing[name];
    thing[name] = value;
    undo.push(() => (thing[name] = was));
  }

  addEventListener("beforeprint", () => {
    if (undo.length) return;
    change(document.documentElement.dataset, "theme", "light");
    for (const one of document.querySelectorAll("article details:not([open])")) {
      change(one, "open", true);
    }
    for (const one of document.querySelectorAll("article img[loading=lazy]")) {
      one.loading = "eager";
    }
    // An explorable covers its picture with a tree of its own: the picture is let through.
    for (const host of document.querySelectorAll(".stn-explorable")) {
      const own = host.shadowRoot;
      if (!own) continue;
      for (const one of own.children) change(one.style, "display", "none");
      const still = document.createElement("slot");
      own.append(still);
      undo.push(() => still.remove());
    }
  });

  addEventListener("afterprint", () => {
    while (undo.length) undo.pop()();
  });
}
