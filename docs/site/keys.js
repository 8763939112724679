// The theme opens its menu, where the window is narrow, and its search by labels without words, which
// the Tab key passes over: here they become buttons with names, which Enter and Space press.
for (const [toggle, name] of [["__drawer", "Menu"], ["__search", "Search"]]) {
  const label = document.querySelector(`.md-header__button[for="${toggle}"]`);
  label.tabIndex = 0;
  label.setAttribute("role", "button");
  label.setAttribute("aria-label", name);
  label.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      label.click();
    }
  });
}
